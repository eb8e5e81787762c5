"""Whole jobs on the largest film and masks that are read: no gigabyte more than they usually take.

`tests.support.peak_memory` measures all jobs on all formats.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs.segmentation.checkpoint import to_safetensors
from jobs.segmentation.unet import UNet
from jobs.storage.s3 import Store
from tests.support.films import write_montgomery
from tests.support.hostile_films import FILMS, LARGEST, write_with_hostile
from tests.support.inboxes import ARCHITECTURE, crown
from tests.support.peak_memory import COUNT, Chain

JOBS = ("download", "preprocess", "inbox")


def peaks(store: Store, out: str, folder: Path) -> dict[str, int]:
    """The MiB that each job takes of the films in `folder`."""
    crown(store, out, "v1", to_safetensors(UNet(**ARCHITECTURE).state_dict()))
    chain = Chain(store, out, folder)
    ends = {job: chain.run(job) for job in JOBS}
    assert {job: end.code for job, end in ends.items()} == dict.fromkeys(JOBS, 0), ends
    # Every film is read and masked, the large one too.
    assert ends["preprocess"].result["headline"]["quarantined"] == 0
    assert ends["inbox"].result["headline"]["masks"] == COUNT
    return {job: end.mib for job, end in ends.items()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_a_film_below_4_mb_takes_less_than_a_gibibyte_more_than_usual(
    store: Store, out: str, tmp_path: Path
) -> None:
    write_montgomery(tmp_path / "honest", COUNT)
    write_with_hostile(tmp_path / "hostile", COUNT, FILMS["PNG, 100 megapixels"]())
    sizes = [path.stat().st_size for path in (tmp_path / "hostile").rglob("*.png")]
    assert len(sizes) == 3 * COUNT and max(sizes) < LARGEST
    usual = peaks(store, f"{out}/honest", tmp_path / "honest")
    hostile = peaks(store, f"{out}/hostile", tmp_path / "hostile")
    # A film of 100 megapixels is in memory whole, or the test shows nothing.
    assert all(hostile[job] - usual[job] > 95 for job in JOBS[1:])
    assert all(hostile[job] - usual[job] < 1024 for job in JOBS), (usual, hostile)
