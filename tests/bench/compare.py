"""Side by side: the same films, split, size, budget and threads for every model and seed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from jobs.segmentation.fit_config import build_model
from tests.bench.flops import gflops_per_film
from tests.bench.launch import run_all
from tests.bench.ours import fit_config
from tests.bench.records import Records
from tests.bench.runs import read_facts, read_probabilities, read_split
from tests.bench.scores import dices, spread, summary

Facts: TypeAlias = dict[str, Any]

PEERS_PYTHON = ".venv-bench/bin/python"
OURS = "ours"
PEERS = {"nnunet": "nnU-Net 2.8.1", "monai": "MONAI 1.6.1"}
MODELS = (OURS, *PEERS)
FIGURES = ("dice_mean", "dice_p05", "images_per_cpu_second", "images_per_second")
TITLES = ("Dice", "5th percentile", "films/CPU-s", "films/s")


def compare(
    records: Records, *, network: str, budget: float, seeds: Sequence[int], at_once: int
) -> Facts:
    """Train all models on all seeds and score them on the test films, which no training saw."""
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        folder = Path(work)
        records.write(folder, records.splits.__getitem__)
        gflops = gflops_of(network, records.images.shape[-1])
        commands = {
            f"{model}-{seed}": command(model, seed, folder, budget, network, gflops)
            for seed in seeds
            for model in MODELS
        }
        run_all(commands, at_once)
        runs = {model: [scored(folder, model, seed) for seed in seeds] for model in MODELS}
    return {"models": runs, "spread": spreads(runs), "ratios": ratios(runs)}


def gflops_of(network: str, size: int) -> float:
    """What one of the project's networks costs a film."""
    return gflops_per_film(build_model(fit_config(network, size=size, epochs=1, seed=0)), size)


def command(
    model: str, seed: int, folder: Path, budget: float, network: str, gflops: float
) -> list[str]:
    """What trains a model: ours by its network's name, a peer as costly a film as ours."""
    about = [str(folder), f"{model}-{seed}", str(seed), str(budget)]
    if model == OURS:
        return [sys.executable, "-m", "tests.bench.ours", *about, network]
    return [PEERS_PYTHON, "-m", "tests.bench.peers", *about, model, str(gflops)]


def scored(folder: Path, model: str, seed: int) -> Facts:
    """A run's facts with its Dice on the test films."""
    facts = read_facts(folder, f"{model}-{seed}")
    assert facts is not None, "a run that ended well leaves its facts"
    facts.pop("history", None)
    found = read_probabilities(folder, f"{model}-{seed}", "test")
    return {"seed": seed, **summary(dices(found, read_split(folder, "test")[1])), **facts}


def spreads(runs: Mapping[str, Sequence[Facts]]) -> dict[str, Facts]:
    """{model: {figure: mean, min and max over the seeds}}."""
    return {
        model: {figure: spread([run[figure] for run in its]) for figure in FIGURES}
        for model, its in runs.items()
    }


def ratios(runs: Mapping[str, Sequence[Facts]]) -> dict[str, dict[str, Facts | None]]:
    """{peer: {figure: ours over the peer's with the same seed; mean, min and max}}."""
    return {
        peer: {figure: ratio(runs[OURS], runs[peer], figure) for figure in FIGURES}
        for peer in PEERS
    }


def ratio(ours: Sequence[Facts], its: Sequence[Facts], figure: str) -> Facts | None:
    """None where the peer has a 0, as its Dice may be after too small a budget."""
    pairs = [(one[figure], other[figure]) for one, other in zip(ours, its, strict=True)]
    return spread([one / other for one, other in pairs]) if all(b for _, b in pairs) else None


def table(result: Mapping[str, Any]) -> list[str]:
    """The comparison in lines: mean (smallest to largest) over the seeds."""
    lines = [" " * 16 + "".join(f"{title:>28}" for title in TITLES)]
    for model, figures in result["spread"].items():
        lines.append(f"{PEERS.get(model, model):16}" + _cells(figures))
    for peer, figures in result["ratios"].items():
        lines.append(f"ours / {peer:9}" + _cells(figures))
    for model, runs in result["models"].items():
        cpu = ", ".join(f"{run['cpu_seconds']:.0f}" for run in runs)
        first = runs[0]
        lines.append(
            f"{PEERS.get(model, model):16}{first['parameters'] / 1e6:.2f} M weights, "
            f"{first['gflops_per_film']:.2f} GFLOP a film, {first['peak_mebibytes']:.0f} MiB, "
            f"CPU-s by seed: {cpu}"
        )
    return lines


def _cells(figures: Mapping[str, Mapping[str, float] | None]) -> str:
    return "".join(_cell(figures[figure]).rjust(28) for figure in FIGURES)


def _cell(one: Mapping[str, float] | None) -> str:
    return f"{one['mean']:.4g} ({one['min']:.4g} to {one['max']:.4g})" if one else "none"
