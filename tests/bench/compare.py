"""Compare the models: each has the same films, split, size, budget and threads, for every seed."""

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
    """Train every model with every seed; score each on the test films, unused in training."""
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
    """GFLOP per film of one of the project's networks, in a forward pass."""
    return gflops_per_film(build_model(fit_config(network, size=size, epochs=1, seed=0)), size)


def command(
    model: str, seed: int, folder: Path, budget: float, network: str, gflops: float
) -> list[str]:
    """The command that trains a model: ours by its network's name, a peer by its GFLOP per film."""
    run = [str(folder), f"{model}-{seed}", str(seed), str(budget)]
    if model == OURS:
        return [sys.executable, "-m", "tests.bench.ours", *run, network]
    return [PEERS_PYTHON, "-m", "tests.bench.peers", *run, model, str(gflops)]


def scored(folder: Path, model: str, seed: int) -> Facts:
    """A run's facts with its Dice on the test films."""
    facts = read_facts(folder, f"{model}-{seed}")
    assert facts is not None, "a successful run writes its facts"
    facts.pop("history", None)
    probabilities = read_probabilities(folder, f"{model}-{seed}", "test")
    masks = read_split(folder, "test")[1]
    return {"seed": seed, **summary(dices(probabilities, masks)), **facts}


def spreads(runs: Mapping[str, Sequence[Facts]]) -> dict[str, Facts]:
    """{model: {figure: mean, min and max over the seeds}}."""
    return {
        model: {figure: spread([run[figure] for run in seeds]) for figure in FIGURES}
        for model, seeds in runs.items()
    }


def ratios(runs: Mapping[str, Sequence[Facts]]) -> dict[str, dict[str, Facts | None]]:
    """{peer: {figure: mean, min and max over the seeds of our value over the peer's}}."""
    return {
        peer: {figure: ratio(runs[OURS], runs[peer], figure) for figure in FIGURES}
        for peer in PEERS
    }


def ratio(ours: Sequence[Facts], peer: Sequence[Facts], figure: str) -> Facts | None:
    """Our values over the peer's, seed by seed; None where a value of the peer is 0.

    A peer's Dice is 0 where the budget was too small for it to learn anything.
    """
    denominators = [run[figure] for run in peer]
    if not all(denominators):
        return None
    return spread([run[figure] / other for run, other in zip(ours, denominators, strict=True)])


def table(result: Mapping[str, Any]) -> list[str]:
    """The comparison as lines of text: mean (smallest to largest) over the seeds."""
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


def _cell(values: Mapping[str, float] | None) -> str:
    if values is None:
        return "none"
    return f"{values['mean']:.4g} ({values['min']:.4g} to {values['max']:.4g})"
