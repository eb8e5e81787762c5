"""Train a peer within a budget of CPU-seconds; runs in .venv-bench, which has their packages.

usage: python -m tests.bench.peers FOLDER NAME SEED BUDGET PEER GFLOPS

The files are those of tests/bench/runs.py. PEER is nnunet or monai. Its width is chosen so that a
film costs about GFLOPS, the cost of the project's network: with an equal number of weights a peer
may cost six times as much per film, and a budget of time would not compare how well they learn.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.bench.cost import Clock, peak_mebibytes
from tests.bench.flops import gflops_per_film
from tests.bench.runs import read_split, write_run

FILMS_AT_ONCE = 8
NARROWEST = 2


def main(folder: Path, name: str, seed: int, budget: float, peer: str, gflops: float) -> None:
    recipe = importlib.import_module(f"tests.bench.peer_{peer}")
    train, val, test = (read_split(folder, split) for split in ("train", "val", "test"))
    size = train[0].shape[-1]
    np.random.seed(seed)
    torch.manual_seed(seed)
    network = nearest_in_cost(recipe.builder(size), size, gflops)
    clock = Clock(budget)
    probabilities_of = recipe.train(network, train, val, seed, clock)
    facts = clock.facts() | {"peak_mebibytes": peak_mebibytes()}
    with torch.inference_mode():
        batches = np.array_split(test[0], -(-len(test[0]) // FILMS_AT_ONCE))
        probabilities = np.concatenate([probabilities_of(batch).numpy() for batch in batches])
    facts |= {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gflops_per_film": gflops_per_film(network, size),
    }
    write_run(folder, name, facts, {"test": probabilities})


def nearest_in_cost(build: Callable[[int], nn.Module], size: int, gflops: float) -> nn.Module:
    """The network whose integer width brings its cost per film nearest to `gflops`."""
    narrower = build(NARROWEST)
    for width in itertools.count(NARROWEST + 1):
        wider = build(width)
        if gflops_per_film(wider, size) >= gflops:
            break
        narrower = wider
    return min(narrower, wider, key=lambda network: abs(gflops_per_film(network, size) - gflops))


if __name__ == "__main__":
    _, folder, name, seed, budget, peer, gflops = sys.argv
    main(Path(folder), name, int(seed), float(budget), peer, float(gflops))
