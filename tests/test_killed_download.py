"""kill -9 in the midst of a download by ranges: the next asks only for what is not in S3 yet."""

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
    """Those of a process that is gone, once no request that it had sent is still being read."""
    found: list[Request] = []
    while len(found) < len(found := stored_ranges(server)):
        time.sleep(QUIET_SECONDS)
    return found


def extents(archive: bytes) -> dict[str, str]:
    """The range of each member's extent, by its name, as another reader of zips finds it."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        infos = opened.infolist()
        stops = [*(info.header_offset for info in infos[1:]), opened.start_dir]
    return {
        info.filename: f"bytes={info.header_offset}-{stop - 1}"
        for info, stop in zip(infos, stops, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("serve", [from_the_web, from_kaggle])
def test_a_killed_download_asks_again_only_for_films_that_are_not_there(
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
        done = {row["id"] for uri in parts(store, out) for row in unpack_rows(store.read(uri))}
        made = run_job(*arguments, environment=environment)
    assert not made["reused"] and len(done) >= 8 * PARTS_BEFORE_THE_KILL
    again = stored_ranges(server)[len(killed) :]
    wanted = {name: span for name, span in extents(data).items() if Path(name).stem not in done}
    assert len(wanted) == 3 * (FILMS - len(done))
    assert sorted(request.range for request in again[2:]) == sorted(wanted.values())
    # What was under way and no part yet is all that comes twice, and the directory.
    seen = {request.range for request in killed}
    under_way = {Path(name).stem for name, span in wanted.items() if span in seen}
    assert len(under_way) <= 2 * THREADS + rows_per_part(FILMS)
    twice = sum(request.sent for request in (*killed, *again)) - len(data)
    print(f"{len(done)} of {FILMS} films were there; {twice} of {len(data)} bytes came twice")
    assert twice < len(data) * len(under_way) / FILMS + 2 * (TAIL + 1)
    config = DownloadConfig(source=archive.as_uri(), out=out)
    assert download.run(config, store).content_hash == made["content_hash"]
