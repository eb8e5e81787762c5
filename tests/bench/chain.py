"""Measure the whole chain: the cost of a rerun, and each job's memory by number of films."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jobs.chain import INPUTS
from jobs.cli import RUN_DEFAULTS
from jobs.local import OUT
from jobs.storage.local_server import embedded_s3
from tests.bench.launch import ROOT
from tests.bench.rounds import Figure, figure
from tests.support.films import write_montgomery

FEW, MANY = 100, 1000
SETTINGS = {
    "preprocess": ("--size", "64"),
    "train": ("--epochs", "1", "--network", "small", "--batch-size", "16"),
    "publish": ("--min-dice", "0", "--starter", "false"),
}
# Runs a job as `python -m jobs` does, then prints its peak memory in MiB.
MEASURED = """
import sys
from jobs.cli import main
from tests.bench.cost import peak_mebibytes
code = main(sys.argv[1:])
print(peak_mebibytes())
sys.exit(code)
"""


def measure(folder: Path) -> dict[str, Figure]:
    """rerun_vs_first and peak_rss_mb."""
    return {"rerun_vs_first": rerun_vs_first(folder), "peak_rss_mb": peak_rss_mb(folder)}


def rerun_vs_first(folder: Path) -> Figure:
    """Seconds of the second `make run-local` over those of the first, each a process."""
    first, again = (run_chain(folder / "chain") for _ in range(2))
    source, epochs = RUN_DEFAULTS["source"], RUN_DEFAULTS["epochs"]
    return figure([again / first], "x", f"the first run, {first:.0f} s: {source}, {epochs} epochs")


def run_chain(folder: Path) -> float:
    """Run the default chain with its results in `folder`; return the seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "jobs", "run", "--folder", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def peak_rss_mb(folder: Path) -> Figure:
    """Peak memory of the largest job with MANY films, in MiB.

    `by_job` holds for each job [peak with FEW films, peak with MANY films, their ratio].
    """
    few, many = (costs(folder / str(films), films) for films in (FEW, MANY))
    by_job = {
        job: [round(few[job].peak), round(cost.peak), round(cost.peak / few[job].peak, 3)]
        for job, cost in many.items()
    }
    peaks = [cost.peak for cost in many.values()]
    against = f"by job, {FEW} and {MANY} films of 160x128"
    return figure(peaks, "MiB", against) | {"by_job": by_job}


class Cost(NamedTuple):
    """The URI of a job's manifest, its seconds, and its peak memory in MiB."""

    manifest: str
    seconds: float
    peak: float


def costs(folder: Path, films: int) -> dict[str, Cost]:
    """Run the chain on `films` small films; return the cost of each job."""
    write_montgomery(folder / "films", films)
    with embedded_s3(folder / "s3") as settings:
        by_job: dict[str, Cost] = {}
        for job, upstream_of in INPUTS.items():
            inputs = {name: by_job[upstream].manifest for name, upstream in upstream_of.items()}
            if job == "download":
                inputs["source"] = (folder / "films").as_uri()
            by_job[job] = run_measured(job, inputs, settings.environment())
    return by_job


def run_measured(job: str, inputs: Mapping[str, str], environment: Mapping[str, str]) -> Cost:
    """Run a job in a separate process; `inputs` maps the names of its flags to their values."""
    flags = [part for name, value in inputs.items() for part in (f"--{name}", value)]
    settings = [*SETTINGS.get(job, ()), "--out", OUT, "--run-id", "bench"]
    process = subprocess.run(
        [sys.executable, "-c", MEASURED, job, *flags, *settings],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    *_, last_line, peak = process.stdout.splitlines()
    result: dict[str, Any] = json.loads(last_line)
    return Cost(result["manifest"], result["seconds"], float(peak))
