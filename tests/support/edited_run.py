"""A small run in S3, and jobs that are run on it after one of its files was edited."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import io
import json
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from jobs.storage import s3
from jobs.storage.manifest import FileEntry, hash_entries
from jobs.storage.s3 import Store
from tests.support.films import draw_pair, png, write_montgomery

FILMS = 16
TRAINING = ("--network", "small", "--epochs", "2", "--batch-size", "8", "--precision", "float32")


@dataclass
class Outcome:
    """How a job ended: its code, 1 for a traceback; the errors that it logged; its result."""

    code: int
    lines: list[str]
    result: dict[str, Any] = field(default_factory=dict)

    def headline(self) -> Any:
        """The figures that the job printed but for its times."""
        return {
            name: figure
            for name, figure in self.result.get("headline", {}).items()
            if "seconds" not in name
        }

    def __str__(self) -> str:
        return f"{self.code}: {' | '.join(self.lines)}"


class _Lines(logging.Handler):
    """Keeps the errors that a job logs; a traceback is several lines."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += logging.Formatter("%(message)s").format(record).splitlines()


# One client for all jobs: to make one takes longer than most of the jobs.
connect = functools.cache(s3.connect)


def run(*arguments: str) -> Outcome:
    """Run `python -m jobs` with these arguments in this process."""
    handler, printed = _Lines(), io.StringIO()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            patch.setattr(s3, "connect", connect)
            code = cli.main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    except Exception as error:
        where = error.__traceback__
        while where and where.tb_next:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
        return Outcome(1, [f"Traceback {type(error).__name__}: {error} ({place})"])
    finally:
        root.removeHandler(handler)
    lines = printed.getvalue().splitlines()
    is_json = code == 0 and lines and lines[-1].startswith("{")
    return Outcome(code, handler.lines, json.loads(lines[-1]) if is_json else {})


@dataclass
class EditedRun:
    """The files of a run below `out`, by their URIs; `manifests` are the URIs of five manifests."""

    store: Store
    out: str
    inbox: str
    manifests: dict[str, str]
    objects: dict[str, bytes]

    def part(self, name: str, number: int = 0) -> str:
        return f"{self.folder(name)}/rows/part-{number:05d}.jsonl.gz"

    def folder(self, name: str) -> str:
        return self.manifests[name].rpartition("/")[0]

    def flags(self, *names: str) -> list[str]:
        return [item for name in names for item in (f"--{name}", self.manifests[name])]

    def beside(self, *prefixes: str, but: str = "/manifest.json") -> str:
        """A new prefix to write to, with copies of the files below `prefixes` of the run."""
        out = f"{self.out}-{uuid.uuid4().hex}"
        self.store.write_many(
            (out + uri.removeprefix(self.out), data)
            for uri, data in self.objects.items()
            if any(uri.startswith(f"{self.out}/{prefix}") for prefix in prefixes)
            and not uri.endswith(but)
        )
        return out

    @contextlib.contextmanager
    def edited(self, uri: str, data: bytes, *, sealed: bool = False) -> Iterator[None]:
        """Inside, the object holds `data`; sealed, with the hashes that it has in manifests."""
        new = {uri: data} | (self._seals(uri, data) if sealed else {})
        self.store.write_many(new.items())
        try:
            yield
        finally:
            self.store.write_many((name, self.objects[name]) for name in new)

    def _seals(self, uri: str, data: bytes) -> dict[str, bytes]:
        """The manifest that lists the object, and those made from it, with new hashes."""
        folder = next(
            self.folder(name) for name in self.manifests if uri.startswith(self.folder(name))
        )
        of = f"{folder}/manifest.json"
        headers = {name: json.loads(self.objects[name]) for name in self.manifests.values()}
        entries = [*headers[of]["parts"], *headers[of]["files"]]
        for entry in (*entries, *headers[of]["records"]):
            if uri == f"{folder}/{entry['key']}":
                content = data
                if entry in headers[of]["parts"]:
                    with contextlib.suppress(OSError, EOFError):
                        content = gzip.decompress(data)
                entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        headers[of]["content_hash"] = hash_entries([FileEntry(**entry) for entry in entries])
        for header in headers.values():
            for source in header["inputs"].values():
                if source["uri"] == of:
                    source["content_hash"] = headers[of]["content_hash"]
        return {name: json.dumps(header).encode() for name, header in headers.items()}


def make_run(store: Store, folder: Path) -> EditedRun:
    """A whole run on FILMS small films, and an inbox of one film that its champion has masked."""
    write_montgomery(folder / "films", FILMS)
    out = f"s3://lung/{uuid.uuid4().hex}"
    inbox = f"{out}-inbox"
    store.write(f"{inbox}/a.png", png(draw_pair(99)[0]))

    def job(name: str, *arguments: str) -> str:
        outcome = run(name, *arguments, "--out", out, "--run-id", "one")
        assert outcome.code == 0, outcome
        return str(outcome.result["manifest"])

    raw = job("download", "--source", (folder / "films").as_uri())
    processed = job("preprocess", "--raw", raw, "--size", "32")
    trained = job("train", "--processed", processed, *TRAINING)
    predictions = job("predict", "--trained", trained, "--films", raw)
    evaluation = job("evaluate", "--predictions", predictions, "--processed", processed)
    manifests = {
        "raw": raw,
        "processed": processed,
        "trained": trained,
        "predictions": predictions,
        "evaluation": evaluation,
    }
    flags = [item for name, uri in manifests.items() for item in (f"--{name}", uri)]
    job("publish", *flags, "--min-dice", "0", "--starter", "false")
    job("inbox", "--inbox", inbox)
    objects = {item.uri: store.read(item.uri) for item in store.list_objects(f"{out}/")}
    return EditedRun(store, out, inbox, manifests, objects)
