"""The chain's table against the jobs that it lists, and the runner."""

from __future__ import annotations

import dataclasses

import pytest

from jobs.chain import INPUTS, run_job
from jobs.settings.config import JOBS, DownloadConfig
from jobs.storage.s3 import Store


@pytest.mark.parametrize("job", INPUTS)
def test_a_job_reads_only_jobs_before_it_by_arguments_that_it_must_be_given(job: str) -> None:
    before = list(INPUTS)[: list(INPUTS).index(job)]
    assert set(INPUTS[job].values()) <= set(before)
    required = {
        item.name
        for item in dataclasses.fields(JOBS[job])
        if item.default is dataclasses.MISSING and item.name != "out"
    }
    assert set(INPUTS[job]) == required


def test_a_result_names_the_manifest_and_holds_the_jobs_profile(store: Store, out: str) -> None:
    config = DownloadConfig(source="synthetic://phantoms?films=2&seed=0", out=out)
    manifest, result = run_job("download", config, store)
    assert result["manifest"] == manifest.uri
    assert result["headline"] == {"films": 2, "pairs": 2, "without_mask": 0}
    assert {"fetch"} <= result["profile"]["stages"].keys()
    assert 0 < result["profile"]["wall_seconds"] <= result["seconds"] + 0.01
    _, again = run_job("download", config, store)
    assert again["reused"] and again["manifest"] == manifest.uri
