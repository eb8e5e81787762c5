"""What the Kaggle source makes of each failure of a stub.

usage: python -m tests.support.kaggle_failures


    case         what Kaggle or its storage does wrong
    attempts     requests until the step that fails has succeeded, or was given up
    bytes again  bytes of the archive sent more than once, over those of a run without failure
    outcome      the exit code that the job ends with, and what it says first

No pause is waited for.
"""

from __future__ import annotations

import io
import logging
import random
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from jobs.errors import JobError
from jobs.sources.kaggle import KaggleSource
from tests.support.kaggle_stub import EXPIRED, KaggleStub, kaggle_stub
from tests.support.range_server import Reply, Request

MEMBERS = {f"images/{n}.png": random.Random(n).randbytes(1_000_000) for n in range(3)}
with zipfile.ZipFile(_stream := io.BytesIO(), "w") as _archive:
    for _name, _content in MEMBERS.items():
        _archive.writestr(_name, _content)
ARCHIVE = _stream.getvalue()
FOR_GOOD = 50  # times that a failure repeats which does not end
BEFORE_A_MEMBER = 2  # requests to storage: for the first byte, and for the directory
WORDS = 9

Prepare = Callable[[KaggleStub], None]


def as_it_is(stub: KaggleStub) -> None:
    pass


def without_ranges(stub: KaggleStub) -> None:
    stub.storage.has_ranges = False


def without_md5(stub: KaggleStub) -> None:
    stub.storage.headers = {"x-goog-hash": ""}
    without_ranges(stub)


@dataclass(frozen=True)
class Case:
    """`replies` come to the requests for `what`, after `after` right ones; `prepare` goes first."""

    name: str
    what: str
    replies: Sequence[Reply]
    after: int = 0
    prepare: Prepare = as_it_is


@dataclass(frozen=True)
class Row:
    case: str
    attempts: int
    outcome: str
    again: int


@dataclass
class Run:
    """One reading of all members."""

    requests: list[Request] = field(default_factory=list)
    outcome: str = "0"
    unread: int = 0  # first answers of the storage that are hung up on, however much was sent ahead

    def asked(self, what: str) -> int:
        return sum(request.what == what for request in self.requests)

    def again(self) -> int:
        seen, again = bytearray(len(ARCHIVE)), 0
        answers = [request for request in self.requests if request.what == "storage"]
        for request in answers[self.unread :]:
            stop = request.start + request.sent
            again += sum(seen[request.start : stop])
            seen[request.start : stop] = bytes([1]) * (stop - request.start)
        return again


def member(name: str, *replies: Reply) -> Case:
    return Case(name, "storage", replies, BEFORE_A_MEMBER)


def whole(name: str, *replies: Reply, prepare: Prepare = without_ranges) -> Case:
    return Case(name, "storage", replies, 1, prepare)


def api(name: str, *replies: Reply, what: str = "GetDataset") -> Case:
    return Case(name, what, replies)


BUSY = Reply(429, {"Retry-After": "30"})
LATER = Reply(429, {"Retry-After": "86400"})
PAGE = Reply(403, body=EXPIRED)
CASES = (
    member("body cut after 500,000 bytes", Reply(cut=500_000)),
    member("body cut ten times", *[Reply(cut=70_000)] * 10),
    Case("directory cut", "storage", [Reply(cut=100_000)], 1),
    member("storage URL expired (403, a page)", PAGE),
    member("body cut, then URL expired twice", Reply(cut=500_000), PAGE, PAGE),
    member("storage 503, 500, 429 with Retry-After", Reply(503), Reply(500), BUSY),
    member("flipped byte: CRC-32 differs once", Reply(flip=5000)),
    member("flipped byte every time", *[Reply(flip=5000)] * FOR_GOOD),
    member("archive replaced while it is read", Reply(412)),
    whole("no ranges", prepare=without_ranges),
    whole("no ranges, body cut", Reply(cut=500_000)),
    whole("no ranges, wrong md5 once", Reply(flip=5000)),
    whole("no ranges, wrong md5 every time", *[Reply(flip=5000)] * FOR_GOOD),
    whole("no ranges, no md5, flipped byte once", Reply(flip=5000), prepare=without_md5),
    api("429 with Retry-After 30 s", BUSY),
    api("429 with Retry-After a day", LATER),
    api("500, then 503", Reply(500), Reply(503)),
    api("503 for good", *[Reply(503)] * FOR_GOOD),
    api("a proxy's page in place of JSON", Reply(200, {"Content-Type": "text/html"}, b"<html>")),
    api("401, no valid token", Reply(401)),
    api("403, terms not accepted", Reply(403), what="DownloadDataset"),
    api("404, no such dataset", Reply(404)),
)


def rows() -> list[Row]:
    """One row a case, each with a stub of its own."""
    clean = read(Case("", "storage", ()))
    clean_whole = read(Case("", "storage", (), prepare=without_ranges))
    return [row(case, clean, clean_whole) for case in CASES]


def row(case: Case, clean: Run, clean_whole: Run) -> Row:
    run = read(case)
    like = clean if case.prepare is as_it_is else clean_whole
    if run.outcome != "0":
        return Row(case.name, run.asked(case.what) - case.after, run.outcome, run.again())
    attempts = run.asked(case.what) - like.asked(case.what) + 1
    return Row(case.name, attempts, run.outcome, run.again() - like.again())


def read(case: Case) -> Run:
    """Read every member of a dataset whose Kaggle fails as the case says."""
    run = Run(unread=int(case.prepare is not as_it_is))
    with (
        kaggle_stub({"hospital/lungs": ARCHIVE}) as stub,
        tempfile.TemporaryDirectory(prefix="kaggle-failures-") as scratch,
        mock.patch("jobs.sources.retries.sleep"),
        mock.patch("kagglehub.clients.get_user_agent", lambda: "kagglehub"),
    ):
        case.prepare(stub)
        stub.fail(case.what, *[Reply()] * case.after, *case.replies)
        source = KaggleSource("kaggle://hospital/lungs", Path(scratch))
        try:
            source.identity()
            assert {name: source.read(name) for name in source.names()} == MEMBERS
        except JobError as error:
            run.outcome = f"{error.exit_code} {' '.join(str(error).split()[:WORDS])} …"
        finally:
            source.close()
        run.requests = list(stub.requests)
    return run


def table(found: Sequence[Row]) -> str:
    lines = [("case", "attempts", "bytes again", "outcome")]
    lines += [(row.case, str(row.attempts), f"{row.again:,}", row.outcome) for row in found]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        f"{case:<{widths[0]}}  {attempts:>{widths[1]}}  {again:>{widths[2]}}  {outcome}"
        for case, attempts, again, outcome in lines
    )


if __name__ == "__main__":
    logging.disable()
    print(table(rows()))
