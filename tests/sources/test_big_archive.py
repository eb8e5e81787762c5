"""A zip larger than the job's memory limit; `python -m tests.bench.big_archive` tests 4 GB."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.big_archive import measure

PEAK_MB = 300


@pytest.mark.slow
@pytest.mark.parametrize("threads", [0, 64], ids=["default threads", "64 threads"])
def test_a_large_archive_is_downloaded_in_little_memory(tmp_path: Path, threads: int) -> None:
    measured = measure(450, tmp_path, threads)
    assert measured.archive_mb >= 450
    assert measured.peak_mb < PEAK_MB, measured
