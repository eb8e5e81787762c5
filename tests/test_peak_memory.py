"""No object under 4 MB takes a job a gigabyte over its usual memory: whole jobs, as processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs.storage.s3 import Store
from tests.support.peak_memory import HOSTILE, measure

BOUND = 1024  # MiB over the usual
WORST_FILMS = ["film: progressive CMYK JPEG, 100 megapixels"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_no_object_under_four_megabytes_takes_a_job_a_gigabyte_more(
    store: Store, tmp_path: Path
) -> None:
    store.ensure_bucket("s3://lung")
    cases = {
        (job, name): (peak.mib - usual, peak.code)
        for job, name, usual, peak in measure(store, tmp_path, WORST_FILMS, HOSTILE)
    }
    assert len(cases) == 7 + 7 * len(WORST_FILMS) + len(HOSTILE)
    assert {case: over for case, (over, _) in cases.items() if over > BOUND} == {}
    codes = {code for (_, name), (_, code) in cases.items() if not name.startswith("model.json: f")}
    assert codes == {0, 65}
