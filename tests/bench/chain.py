"""The whole chain: what a run costs that finds its work done, and each job's memory by films."""

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
    "publish": ("--min-dice", "0"),
}
# Runs a job as `python -m jobs` does and prints the most memory that it held.
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
    """The chain of `make run-local` again over the first time, each in a process of its own."""
    first, again = (run_chain(folder / "chain") for _ in range(2))
    about = (
        f"the first run, {first:.0f} s: {RUN_DEFAULTS['source']}, {RUN_DEFAULTS['epochs']} epochs"
    )
    return figure([again / first], "x", about)


def run_chain(folder: Path) -> float:
    """The seconds it takes."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "jobs", "run", "--folder", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def peak_rss_mb(folder: Path) -> Figure:
    """The largest of all jobs with MANY films; `by_job` has [FEW films', MANY films', ratio]."""
    few, many = (costs(folder / str(films), films) for films in (FEW, MANY))
    by_job = {
        job: [round(few[job].peak), round(cost.peak), round(cost.peak / few[job].peak, 3)]
        for job, cost in many.items()
    }
    about = f"by job, {FEW} and {MANY} films of 160x128"
    return figure([cost.peak for cost in many.values()], "MiB", about) | {"by_job": by_job}


class Cost(NamedTuple):
    """What a job made, how long it worked, and the most memory that it held, in MiB."""

    manifest: str
    seconds: float
    peak: float


def costs(folder: Path, films: int) -> dict[str, Cost]:
    """What each job of the chain costs on `films` small films."""
    write_montgomery(folder / "films", films)
    with embedded_s3(folder / "s3") as settings:
        found: dict[str, Cost] = {}
        for job, upstream_of in INPUTS.items():
            inputs = {name: found[upstream].manifest for name, upstream in upstream_of.items()}
            if job == "download":
                inputs["source"] = (folder / "films").as_uri()
            found[job] = run_measured(job, inputs, settings.environment())
    return found


def run_measured(job: str, inputs: Mapping[str, str], environment: Mapping[str, str]) -> Cost:
    """Run a job in a process of its own; `inputs` are its flags by name."""
    flags = [part for name, value in inputs.items() for part in (f"--{name}", value)]
    place = ("--out", OUT, "--run-id", "bench")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, job, *flags, *SETTINGS.get(job, ()), *place],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    *_, result, peak = done.stdout.splitlines()
    about: dict[str, Any] = json.loads(result)
    return Cost(about["manifest"], about["seconds"], float(peak))
