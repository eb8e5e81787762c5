"""A table of how the Kaggle source handles each failure of a stub, without real pauses.

usage: python -m tests.support.kaggle_failures

    case          the failure of Kaggle or of its storage
    attempts      requests until the failing step succeeded or was given up
    bytes resent  bytes of the archive sent more than once, less those of a run without failure
    outcome       the exit code of the job and the first words of its message
"""

from __future__ import annotations

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
from tests.support.archives import zipped
from tests.support.kaggle_stub import EXPIRED, KaggleStub, kaggle_stub
from tests.support.range_server import Reply, Request

MEMBERS = {f"images/{n}.png": random.Random(n).randbytes(1_000_000) for n in range(3)}
ARCHIVE = zipped(MEMBERS, zipfile.ZIP_STORED)
# Repetitions of a failure that does not end: more than there are attempts.
FOR_GOOD = 50
# Requests to storage before the first member: for the first byte, and for the directory.
BEFORE_A_MEMBER = 2
# Words of a message in the table.
WORDS = 9

Prepare = Callable[[KaggleStub], None]


def with_ranges(stub: KaggleStub) -> None:
    """The stub's default."""


def without_ranges(stub: KaggleStub) -> None:
    stub.storage.has_ranges = False


def without_md5(stub: KaggleStub) -> None:
    stub.storage.headers = {"x-goog-hash": ""}
    without_ranges(stub)


@dataclass(frozen=True)
class Case:
    """After `prepare`, `after` requests for `operation` succeed; the next ones get `replies`."""

    name: str
    operation: str
    replies: Sequence[Reply]
    after: int = 0
    prepare: Prepare = with_ranges


@dataclass(frozen=True)
class Row:
    case: str
    attempts: int
    outcome: str
    resent: int


@dataclass
class Run:
    """One reading of all members."""

    requests: list[Request] = field(default_factory=list)
    outcome: str = "0"
    unread: int = 0  # first responses of storage that the client closes without reading them

    def requests_for(self, operation: str) -> list[Request]:
        return [request for request in self.requests if request.operation == operation]

    def resent(self) -> int:
        """Bytes of the archive that were sent more than once."""
        is_sent, resent = bytearray(len(ARCHIVE)), 0
        for request in self.requests_for("storage")[self.unread :]:
            stop = request.start + request.sent
            resent += sum(is_sent[request.start : stop])
            is_sent[request.start : stop] = bytes([1]) * (stop - request.start)
        return resent


def member(name: str, *replies: Reply) -> Case:
    return Case(name, "storage", replies, BEFORE_A_MEMBER)


def whole(name: str, *replies: Reply, prepare: Prepare = without_ranges) -> Case:
    return Case(name, "storage", replies, 1, prepare)


def api(name: str, *replies: Reply, operation: str = "GetDataset") -> Case:
    return Case(name, operation, replies)


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
    api("403, terms not accepted", Reply(403), operation="DownloadDataset"),
    api("404, no such dataset", Reply(404)),
)


def rows() -> list[Row]:
    """One row for each case; each case has a new stub."""
    clean = read(Case("", "storage", ()))
    clean_whole = read(Case("", "storage", (), prepare=without_ranges))
    return [row(case, clean, clean_whole) for case in CASES]


def row(case: Case, clean: Run, clean_whole: Run) -> Row:
    run = read(case)
    baseline = clean if case.prepare is with_ranges else clean_whole
    requests = len(run.requests_for(case.operation))
    if run.outcome != "0":
        return Row(case.name, requests - case.after, run.outcome, run.resent())
    attempts = requests - len(baseline.requests_for(case.operation)) + 1
    return Row(case.name, attempts, run.outcome, run.resent() - baseline.resent())


def read(case: Case) -> Run:
    """Read every member of a dataset from a stub that fails as in the case."""
    run = Run(unread=int(case.prepare is not with_ranges))
    with (
        kaggle_stub({"hospital/lungs": ARCHIVE}) as stub,
        tempfile.TemporaryDirectory(prefix="kaggle-failures-") as scratch,
        mock.patch("jobs.sources.retries.sleep"),
        mock.patch("kagglehub.clients.get_user_agent", lambda: "kagglehub"),
    ):
        case.prepare(stub)
        stub.fail(case.operation, *[Reply()] * case.after, *case.replies)
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


def table(results: Sequence[Row]) -> str:
    lines = [("case", "attempts", "bytes resent", "outcome")]
    lines += [(row.case, str(row.attempts), f"{row.resent:,}", row.outcome) for row in results]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        f"{case:<{widths[0]}}  {attempts:>{widths[1]}}  {resent:>{widths[2]}}  {outcome}"
        for case, attempts, resent, outcome in lines
    )


if __name__ == "__main__":
    logging.disable()
    print(table(rows()))
