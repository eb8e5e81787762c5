"""kill -9 midway through each job, then the same command: the content of an unbroken run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.chain import INPUTS
from jobs.storage.s3 import Store
from tests.support.films import ROOT, run_job, write_montgomery

FILMS = 96
OPTIONS = {
    "download": [],
    "preprocess": ["--size", "32"],
    "train": ["--epochs", "3", "--network", "small", "--precision", "float32"],
    "predict": [],
    "evaluate": [],
    "publish": ["--run-id", "killed"],
}
# When a job is midway: (folder, number of objects below it).
MIDWAY = {
    "download": ("raw", 20),
    "preprocess": ("processed", 20),
    "train": ("trained", 3),
    "predict": ("predictions", 10),
    "evaluate": ("evaluations", 1),
    "publish": ("models", 1),
}


class Chain:
    """The results of the jobs that ran in one prefix; a job's command is made from them."""

    def __init__(self, source: str, out: str, environment: dict[str, str]) -> None:
        self.out = out
        self.environment = environment
        self.source = source
        self.results: dict[str, Any] = {}

    def arguments(self, job: str) -> list[str]:
        inputs = {name: self.results[other]["manifest"] for name, other in INPUTS[job].items()}
        flags = [word for name, uri in inputs.items() for word in (f"--{name}", uri)]
        source = ["--source", self.source] if job == "download" else []
        return [job, *source, *flags, *OPTIONS[job], "--out", self.out]

    def run(self, job: str) -> Any:
        self.results[job] = run_job(*self.arguments(job), environment=self.environment)
        return self.results[job]

    def kill_midway(self, job: str, store: Store) -> None:
        folder, enough = MIDWAY[job]
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", *self.arguments(job)],
            cwd=ROOT,
            env=os.environ | self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        limit = time.monotonic() + 60
        while len(list(store.list_objects(f"{self.out}/{folder}/"))) < enough:
            assert process.poll() is None, f"{job} ended before it could be killed"
            assert time.monotonic() < limit, f"{job} did not get that far in a minute"
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -9, f"{job} ended before it could be killed"


@pytest.fixture(scope="module")
def chains(
    s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Chain, Chain]]:
    """Two empty prefixes over the same films: one for unbroken jobs, one for killed jobs."""
    films = tmp_path_factory.mktemp("films")
    write_montgomery(films, FILMS)
    names = ("unbroken", "killed")
    one, two = (Chain(films.as_uri(), f"s3://lung/kill-{name}", s3) for name in names)
    yield one, two


@pytest.mark.slow
@pytest.mark.parametrize("job", INPUTS)
def test_a_killed_job_ends_as_an_unbroken_one(
    job: str, chains: tuple[Chain, Chain], store: Store
) -> None:
    unbroken, killed = chains
    expected = unbroken.run(job)
    killed.kill_midway(job, store)
    result = killed.run(job)
    assert not result["reused"], "the job had ended before the kill"
    assert result["content_hash"] == expected["content_hash"]
