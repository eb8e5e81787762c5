"""Train the project's network and its peers, or cross-validate by patient: `make bench-train`.

Variables: SOURCE SIZE NETWORK; BUDGET: CPU-seconds per training; SEEDS: their number; PROCESSES:
trainings in parallel, one thread each; FOLDS=5: cross-validation instead. Writes to artifacts/.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from tests.bench import compare, folds
from tests.bench.launch import ROOT
from tests.bench.records import Records, read_records
from tests.bench.runs import write_json

ARTIFACTS = ROOT / "artifacts"
DEFAULTS = {
    "SOURCE": "synthetic://phantoms?films=120&seed=0",
    "SIZE": "256",
    "NETWORK": "base",
    "BUDGET": "120",
    "SEEDS": "3",
    "PROCESSES": "1",
    "FOLDS": "0",
}

LEGEND = (
    "{BUDGET} CPU-s a training, one thread each, {PROCESSES} at a time; films a second count "
    "training steps alone.\nMean (smallest to largest) over {SEEDS} seeds, on the test films:\n"
)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    settings = {name: os.environ.get(name) or default for name, default in DEFAULTS.items()}
    work = ARTIFACTS / ".bench"
    work.mkdir(parents=True, exist_ok=True)
    records = read_records(settings["SOURCE"], int(settings["SIZE"]), work / "s3")
    if int(settings["FOLDS"]):
        by_folds(records, settings, work)
    else:
        side_by_side(records, settings)


def side_by_side(records: Records, settings: dict[str, str]) -> None:
    result = compare.compare(
        records,
        network=settings["NETWORK"],
        budget=float(settings["BUDGET"]),
        seeds=range(int(settings["SEEDS"])),
        at_once=int(settings["PROCESSES"]),
    )
    result = environment(settings) | result
    path = ARTIFACTS / "bench-train.json"
    write_json(path, result)
    legend = LEGEND.format(**settings)
    print_lines([legend, *compare.table(result)], path)


def by_folds(records: Records, settings: dict[str, str], work: Path) -> None:
    cross_validation = folds.Folds(
        records,
        work,
        folds=int(settings["FOLDS"]),
        network=settings["NETWORK"],
        budget=float(settings["BUDGET"]),
        environment=environment(settings),
    )
    result = cross_validation.run(ARTIFACTS, int(settings["PROCESSES"]))
    print_lines(folds.table(result), ARTIFACTS / "bench-folds.json")


def environment(settings: dict[str, str]) -> dict[str, Any]:
    """The settings, versions and hardware that the figures depend on."""
    return {
        "settings": settings,
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads_a_training": 1,
    }


def print_lines(lines: list[str], path: Path) -> None:
    print("\n" + "\n".join(lines) + f"\n\nAll figures: {path}", flush=True)


if __name__ == "__main__":
    main()
