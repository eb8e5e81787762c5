"""The download of one large zip: its peak memory and its pace. `python -m tests.bench.big_archive`.

    python -m tests.bench.big_archive --megabytes 4096 --threads 64

Builds a zip of stored members of random bytes, serves it from a real S3 server, and runs the job in
a process of its own, with as many threads as it has or with --threads. It needs three times the
size on disk, in --folder, and removes it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.storage.local_server import embedded_s3
from jobs.storage.s3 import Store
from tests.bench.launch import ROOT

MB = 10**6
FILM_MB = (4, 8, 12, 24)  # sizes of films in turn
# `python -m jobs` with another number of threads, which no flag sets.
WITH_THREADS = """
import sys
from jobs.cli import main
from jobs.storage.s3 import Store
Store.__init__.__kwdefaults__["threads"] = int(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""
MASK = random.Random(0).randbytes(20_000)


@dataclass(frozen=True)
class Measured:
    """`peak_mb` is the job's VmHWM, `seconds` its whole time, Python's start with it."""

    films: int
    archive_mb: int
    peak_mb: int
    seconds: float
    mb_per_second: float


def write_archive(path: Path, megabytes: int) -> int:
    """Write a zip of about that size, a film and its mask in turn; the number of films."""
    rng, films, written = random.Random(1), 0, 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        while written < megabytes * MB:
            content = rng.randbytes(FILM_MB[films % len(FILM_MB)] * MB)
            archive.writestr(f"set/images/film-{films:05d}.png", content)
            archive.writestr(f"set/masks/film-{films:05d}.png", MASK)
            films, written = films + 1, written + len(content) + len(MASK)
    return films


def measure(megabytes: int, folder: Path, threads: int = 0) -> Measured:
    """Download an archive of that size from S3 into S3; 0 threads are the job's own number."""
    program = ["-c", WITH_THREADS, str(threads)] if threads else ["-m", "jobs"]
    with embedded_s3(folder / "s3") as settings:
        path = folder / "big.zip"
        films = write_archive(path, megabytes)
        size = path.stat().st_size
        Store(settings).upload(path, "s3://lung/big.zip")
        path.unlink()
        arguments = ["download", "--source", "s3://lung/big.zip", "--out", "s3://lung/out"]
        started = time.monotonic()
        peak, result = run_and_watch([*program, *arguments], settings.environment())
        seconds = time.monotonic() - started
    assert result["headline"] == {"films": films, "pairs": films, "without_mask": 0}
    pace = round(size / MB / seconds, 1)
    return Measured(films, size // MB, peak, round(seconds, 1), pace)


def run_and_watch(arguments: list[str], environment: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """(peak resident memory in MB, the job's result) of Python with the arguments."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_kb(process.pid))
            time.sleep(0.02)
        assert process.returncode == 0 and process.stdout is not None
        return peak * 1024 // MB, json.loads(process.stdout.read().splitlines()[-1])


def peak_kb(pid: int) -> int:
    """VmHWM of a process, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except ProcessLookupError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="big-archive-", dir=arguments.folder) as folder:
        measured = measure(arguments.megabytes, Path(folder), arguments.threads)
        print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
