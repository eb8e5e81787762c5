"""Measure the data path: `make bench` prints a table and writes artifacts/bench.json.

A figure is a ratio of two sides that alternate within this run: the median of ROUNDS rounds (5 by
default), or one round for the whole chain.
"""

from __future__ import annotations

import logging
import operator
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from jobs.runtime.memory import keep_freed_memory
from jobs.segmentation.device import computes_bfloat16
from tests.bench import chain, objects, predict, preprocess, training
from tests.bench.launch import ROOT
from tests.bench.rounds import Figure
from tests.bench.runs import write_json

ROUNDS = 5
ARTIFACTS = ROOT / "artifacts"


class Target(NamedTuple):
    sign: str
    bound: float

    def is_met(self, value: float) -> bool:
        compare: Callable[[float, float], bool]
        compare = operator.ge if self.sign == "≥" else operator.le
        return compare(value, self.bound)


TARGETS = {
    "preprocess_vs_naive": Target("≥", 15),
    "preprocess_vs_inflate": Target("≤", 2.6),
    "cache_vs_png": Target("≥", 10),
    "train_step_vs_eager_fp32": Target("≥", 1.8),
    "train_data_wait": Target("≤", 0.05),
    "predict_vs_model_only": Target("≥", 0.85),
    "s3_many_small_vs_transfer": Target("≥", 1.3),
    "rerun_vs_first": Target("≤", 0.1),
}
# A job's peak memory with ten times the films, over its peak with fewer.
FLAT_MEMORY = Target("≤", 1.15)
# The figure whose target holds only for CPUs that compute in bfloat16.
BFLOAT16_FIGURE = "train_step_vs_eager_fp32"


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    # The jobs do the same at their start.
    keep_freed_memory()
    rounds = int(os.environ.get("ROUNDS") or ROUNDS)
    measures: dict[str, Callable[[Path], dict[str, Figure]]] = {
        "preprocess": lambda folder: preprocess.measure(rounds, folder),
        "predict": lambda folder: predict.measure(rounds, folder),
        "training": lambda folder: training.measure(rounds, folder),
        "objects": lambda folder: objects.measure(rounds, folder),
        "chain": chain.measure,
    }
    figures: dict[str, Figure] = {}
    for name, measure in measures.items():
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
            figures |= measure(Path(folder))
        print(f"{name} took {time.perf_counter() - started:.0f} s", flush=True)
    ARTIFACTS.mkdir(exist_ok=True)
    path = ARTIFACTS / "bench.json"
    write_json(path, figures)
    print("\n" + "\n".join(table(figures)) + f"\n\nAll figures: {path}", flush=True)


def table(figures: Mapping[str, Figure]) -> list[str]:
    """One line per figure with its target, and one line per job with its peak memory."""
    lines = [f"{'':34}{'median':>9}  {'smallest to largest':22}{'target':>8}  "]
    for key, figure in figures.items():
        spread = f"{_short(figure['min'])} to {_short(figure['max'])}"
        unit = "MiB" if figure["unit"] == "MiB" else ""
        value = f"{_short(figure['value'])} {unit}".rstrip()
        lines.append(f"{key:34}{value:>9}  {spread:22}{verdict(key, figure):16}{figure['against']}")
    for job, (few, many, ratio) in figures.get("peak_rss_mb", {}).get("by_job", {}).items():
        spread = f"{few} to {many} MiB"
        lines.append(f"  {job:32}{ratio:>9}  {spread:22}{_compared(FLAT_MEMORY, ratio):16}")
    return lines


def verdict(key: str, figure: Figure) -> str:
    """A figure's target and whether it is met; empty for a figure without a target."""
    target = TARGETS.get(key)
    if not target:
        return ""
    if key == BFLOAT16_FIGURE and not computes_bfloat16(torch.device("cpu")):
        return "no bfloat16"
    return _compared(target, figure["value"])


def _compared(target: Target, value: float) -> str:
    return f"{target.sign} {target.bound:g} {'met' if target.is_met(value) else 'missed'}"


def _short(value: float) -> str:
    return f"{value:.3g}"


if __name__ == "__main__":
    main()
