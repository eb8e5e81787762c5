"""Copy a small public set from the real Kaggle with your token: `make kaggle-test`.

The set is yoctoman/shcxr-lung-mask (CC BY-NC-SA 4.0), half of the default source: 566 masks of the
662 films of Shenzhen, whose other half takes gigabytes. Drawn films with Shenzhen's names stand in
for it, so the job `download` runs as always: token, terms, version, archive by ranges, CRC-32s,
pairs. The masks are copied to an S3 server in a temporary folder, which is removed.

The figures are those of the set's page. They and the protocol were tested against a stand-in alone:
nobody with a token has run this yet.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kagglehub.config import get_kaggle_credentials  # type: ignore[import-untyped]

from jobs.sources.kaggle import TOKEN_FORMS
from jobs.storage.local_server import BUCKET, embedded_s3
from jobs.storage.manifest import read_manifest
from jobs.storage.s3 import Store
from jobs.storage.s3_client import S3Settings
from tests.bench.launch import ROOT
from tests.support.films import png

HANDLE = "yoctoman/shcxr-lung-mask"
EXPECTED = {"films": 662, "pairs": 566, "without_mask": 96}
SECONDS = 120


def main() -> int:
    """0 where the counts are the expected ones, and where there is no token; else 1."""
    if not has_token():
        print(f"SKIPPED kaggle-test: there is no Kaggle token: {TOKEN_FORMS}")
        return 0
    with tempfile.TemporaryDirectory(prefix="kaggle-") as work:
        draw_films(Path(work, "films"))
        with embedded_s3(Path(work, "s3")) as settings:
            return download(settings, Path(work, "films"))


def has_token() -> bool:
    """Whether there are credentials in any form that the Kaggle source takes, readable or not."""
    try:
        return get_kaggle_credentials() is not None
    except (OSError, ValueError, TypeError):
        return True


def draw_films(folder: Path) -> None:
    """Write a film of noise under the name of each film of Shenzhen."""
    folder.mkdir()
    for number in range(1, EXPECTED["films"] + 1):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        (folder / f"CHNCXR_{number:04}_{number > 326:d}.png").write_bytes(png(noise))


def download(settings: S3Settings, films: Path) -> int:
    """Run the job as a person would, and print its seconds and counts; the exit code."""
    source = f"{films.as_uri()}+kaggle://{HANDLE}"
    arguments = ["download", "--source", source, "--out", f"s3://{BUCKET}/kaggle-test"]
    started = time.monotonic()
    try:
        job = subprocess.run(
            [sys.executable, "-m", "jobs", *arguments],
            cwd=ROOT,
            env=settings.environment(),
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return failed(f"not done after {SECONDS} s")
    seconds = time.monotonic() - started
    if job.returncode:
        return failed(f"download ended with {job.returncode} after {seconds:.1f} s: see above")
    result = json.loads(job.stdout.splitlines()[-1])
    (kaggle,) = (
        identity
        for identity in read_manifest(Store(settings), result["manifest"]).config["sources"]
        if identity.get("handle") == HANDLE
    )
    counts = ", ".join(f"{name} {count}" for name, count in result["headline"].items())
    text = f"{counts} in {seconds:.1f} s from {HANDLE}, version {kaggle['version']}"
    if result["headline"] != EXPECTED:
        return failed(f"{text}; the set's page says {EXPECTED}")
    print(f"PASSED kaggle-test: {text}")
    return 0


def failed(reason: str) -> int:
    print(f"FAILED kaggle-test: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
