"""A download by ranges, killed with SIGKILL: the next one requests only films not yet in S3."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs import download
from jobs.settings.config import DownloadConfig
from jobs.sources.archive import TAIL
from jobs.storage.s3 import THREADS, Store
from jobs.storage.work_folder import rows_per_part, unpack_rows
from tests.support.films import ROOT, run_job, write_montgomery
from tests.support.kaggle_stub import kaggle_stub
from tests.support.range_server import RangeServer, Request, range_server

FILMS = 200
PARTS_BEFORE_THE_KILL = 12  # of 25, 8 films each
SECONDS = 60
QUIET_SECONDS = 0.5


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_montgomery(folder, FILMS)
    path = folder / "films.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for film in sorted(folder.rglob("*.png")):
            opened.write(film, film.relative_to(folder))
    return path


@contextmanager
def from_the_web(archive: bytes) -> Iterator[tuple[str, RangeServer, dict[str, str]]]:
    with range_server({"films.zip": archive}) as server:
        yield f"{server.url}/films.zip", server, {}


@contextmanager
def from_kaggle(archive: bytes) -> Iterator[tuple[str, RangeServer, dict[str, str]]]:
    with kaggle_stub({"team/films": archive}) as stub:
        yield "kaggle://team/films", stub.storage, stub.environment


def parts(store: Store, out: str) -> list[str]:
    return [item.uri for item in store.list_objects(f"{out}/raw/") if "/rows/part-" in item.uri]


def kill_midway(command: list[str], environment: dict[str, str], store: Store, out: str) -> None:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + SECONDS
    while len(parts(store, out)) < PARTS_BEFORE_THE_KILL:
        assert process.poll() is None and time.monotonic() < limit, "it was not killed midway"
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9, "it ended before it could be killed"


def stored_ranges(server: RangeServer) -> list[Request]:
    return [request for request in server.requests if request.operation == "storage"]


def settled_ranges(server: RangeServer) -> list[Request]:
    """The ranges that a killed process requested, once the server has counted all of them."""
    before, ranges = 0, stored_ranges(server)
    while before < len(ranges):
        time.sleep(QUIET_SECONDS)
        before, ranges = len(ranges), stored_ranges(server)
    return ranges


def extents(archive: bytes) -> dict[str, str]:
    """{member: its byte range in the archive}, as zipfile reads the directory."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        infos = opened.infolist()
        stops = [*(info.header_offset for info in infos[1:]), opened.start_dir]
    return {
        info.filename: f"bytes={info.header_offset}-{stop - 1}"
        for info, stop in zip(infos, stops, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("serve", [from_the_web, from_kaggle])
def test_after_a_kill_a_download_requests_only_films_that_are_not_in_s3(
    serve: object, archive: Path, store: Store, s3: dict[str, str], out: str
) -> None:
    assert callable(serve)
    data = archive.read_bytes()
    with serve(data) as (uri, server, variables):
        server.delay = 0.01
        arguments = ["download", "--source", uri, "--out", out]
        environment = s3 | variables
        kill_midway([sys.executable, "-m", "jobs", *arguments], environment, store, out)
        killed = settled_ranges(server)
        finished = {row["id"] for uri in parts(store, out) for row in unpack_rows(store.read(uri))}
        result = run_job(*arguments, environment=environment)
    assert not result["reused"] and len(finished) >= 8 * PARTS_BEFORE_THE_KILL
    again = stored_ranges(server)[len(killed) :]
    missing = {
        name: span for name, span in extents(data).items() if Path(name).stem not in finished
    }
    assert len(missing) == 3 * (FILMS - len(finished))
    assert sorted(request.range for request in again[2:]) == sorted(missing.values())
    # Twice come only the films that were under way, without a part in S3, and the zip's directory.
    requested = {request.range for request in killed}
    under_way = {Path(name).stem for name, span in missing.items() if span in requested}
    assert len(under_way) <= 2 * THREADS + rows_per_part(FILMS)
    twice = sum(request.sent for request in (*killed, *again)) - len(data)
    print(f"{len(finished)} of {FILMS} films were in S3; {twice} of {len(data)} bytes came twice")
    assert twice < len(data) * len(under_way) / FILMS + 2 * (TAIL + 1)
    config = DownloadConfig(source=archive.as_uri(), out=out)
    assert download.run(config, store).content_hash == result["content_hash"]
