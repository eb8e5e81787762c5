"""Measure the peak memory and the throughput of `download` on one large zip.

    python -m tests.bench.big_archive --megabytes 4096 --threads 64

The zip has stored members of random bytes and lies in a real S3 server. The job runs in a separate
process, with its default number of threads or with --threads. --folder needs three times the zip's
size on disk; the files are removed at the end.
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
# Sizes of the films, repeated in this order.
FILM_MB = (4, 8, 12, 24)
# `python -m jobs` with another number of threads; the command line has no flag for it.
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
    """`peak_mb` is the job's VmHWM; `seconds` is its wall time, which includes Python's start."""

    films: int
    archive_mb: int
    peak_mb: int
    seconds: float
    mb_per_second: float


def write_archive(path: Path, megabytes: int) -> int:
    """Write a zip of about `megabytes` MB, films and masks alternating; return the film count."""
    rng, films, written = random.Random(1), 0, 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        while written < megabytes * MB:
            content = rng.randbytes(FILM_MB[films % len(FILM_MB)] * MB)
            archive.writestr(f"set/images/film-{films:05d}.png", content)
            archive.writestr(f"set/masks/film-{films:05d}.png", MASK)
            films, written = films + 1, written + len(content) + len(MASK)
    return films


def measure(megabytes: int, folder: Path, threads: int = 0) -> Measured:
    """Download an archive of `megabytes` MB from S3 into S3; 0 threads: the job's default."""
    program = ["-c", WITH_THREADS, str(threads)] if threads else ["-m", "jobs"]
    with embedded_s3(folder / "s3") as settings:
        path = folder / "big.zip"
        films = write_archive(path, megabytes)
        size = path.stat().st_size
        Store(settings).upload(path, "s3://lung/big.zip")
        path.unlink()
        arguments = ["download", "--source", "s3://lung/big.zip", "--out", "s3://lung/out"]
        started = time.monotonic()
        peak, result = run_with_peak([*program, *arguments], settings.environment())
        seconds = time.monotonic() - started
    assert result["headline"] == {"films": films, "pairs": films, "without_mask": 0}
    rate = round(size / MB / seconds, 1)
    return Measured(films, size // MB, peak, round(seconds, 1), rate)


def run_with_peak(arguments: list[str], environment: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Run Python with the arguments: (its peak resident memory in MB, the job's JSON result)."""
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
    """VmHWM of a process in kB; 0 once the process has ended."""
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
