"""Trains the project's own network within a budget of CPU-seconds.

usage: python -m tests.bench.ours FOLDER NAME SEED BUDGET NETWORK      (files: tests/bench/runs.py)
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from jobs import segmentation
from jobs.models.training import SETTINGS
from jobs.segmentation import checkpoint, inference
from jobs.segmentation.dataset import Films, global_batches
from jobs.segmentation.fit_config import NETWORKS, FitConfig, build_model
from jobs.segmentation.history import EpochRow
from jobs.segmentation.trainer import EpochResult, Trainer
from jobs.settings.config import TrainConfig
from tests.bench.cost import Throughput, cpu_seconds, epochs_within, peak_mebibytes
from tests.bench.flops import gflops_per_film
from tests.bench.runs import Pixels, Probabilities, read_split, write_run

URI = "s3://bench/manifest.json"  # TrainConfig wants one, of which nothing is read
MANY, DRY_STEPS = 10_000, 4  # epochs and steps of the training that finds what an epoch costs
DRY_SHARE = 0.04
PLANNED_SHARE = 0.9  # of the budget: a schedule that is cut short trains badly


@dataclass(frozen=True)
class Trained:
    """What maps images uint8 (N, S, S) to probabilities, and the facts of its training."""

    predict: Callable[[Pixels], Probabilities]
    facts: dict[str, Any]


def fit_config(network: str, *, size: int, epochs: int, seed: int) -> FitConfig:
    """The settings that the job train has for a network."""
    config = TrainConfig(out=URI, processed=URI, network=network, seed=seed)
    settings = {name: getattr(config, name) for name in SETTINGS} | {"epochs": epochs}
    return FitConfig(size=size, **NETWORKS[config.network], **settings)


def train_ours(train: Films, val: Films, *, network: str, seed: int, budget: float) -> Trained:
    """Train for at most `budget` CPU-seconds, those of trying what an epoch costs among them.

    The schedule wants the number of epochs before the first, so it is found by a short training.
    """
    torch.optim.SGD([torch.zeros(1)])  # what the first optimizer loads is not training
    started = cpu_seconds()

    def config_of(epochs: int) -> FitConfig:
        return fit_config(network, size=train.images.shape[-1], epochs=epochs, seed=seed)

    cost = epoch_cost(config_of(MANY), train, val, started + DRY_SHARE * budget)
    left = PLANNED_SHARE * budget - (cpu_seconds() - started)
    config = config_of(epochs_within(left, cost))
    watch = _Watch(config, len(train), started + budget, say=True)
    watch.throughput.start()
    with contextlib.suppress(_BudgetSpentError):
        for result in Trainer(config, train, val).epochs(watch.on_step):
            watch.on_epoch(result)
    model = build_model(config)
    facts = {
        "epochs": len(watch.history),
        "planned_epochs": config.epochs,
        "cpu_seconds": cpu_seconds() - started,
        "peak_mebibytes": peak_mebibytes(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflops_per_film": gflops_per_film(model, config.size),
        **watch.throughput.figures(),
        "history": watch.history,
    }
    return Trained(_predictor(config, watch.best), facts)


def epoch_cost(config: FitConfig, train: Films, val: Films, limit: float) -> float:
    """CPU-seconds that an epoch takes, from short ones on some of the films, up to `limit`.

    The first does not count: it finds memory and ways to convolve.
    """
    count = min(len(train), DRY_STEPS * config.batch_size)
    watch = _Watch(config, count, limit, say=False)
    few = Films(train.images[:count], train.masks[:count])
    with contextlib.suppress(_BudgetSpentError):
        for result in Trainer(config, few, val).epochs(watch.on_step):
            watch.on_epoch(result)
    epochs = len(watch.ends) - 1
    of_all = (watch.ends[-1].cpu - watch.ends[0].cpu) / epochs
    of_steps = (watch.ends[-1].in_steps - watch.ends[0].in_steps) / epochs
    return of_steps / count * len(train) + of_all - of_steps


class _BudgetSpentError(Exception):
    """Another epoch would cost more than is left."""


class _End(NamedTuple):
    """CPU-seconds at the end of an epoch: all so far, and those in training steps."""

    cpu: float
    in_steps: float


class _Watch:
    """Follows a training: what its steps and epochs cost, its history, its best weights.

    Raises _BudgetSpentError before an epoch, from the third on, that would take this process's
    CPU-seconds past `limit`. With `say` it prints a line an epoch.
    """

    def __init__(self, config: FitConfig, films: int, limit: float, *, say: bool) -> None:
        self.throughput = Throughput()
        self.ends: list[_End] = []
        self.history: list[EpochRow] = []
        self.best = b""
        self._epochs = config.epochs
        self._limit = limit
        self._say = say
        batches = global_batches(np.arange(films), config.batch_size)
        self._sizes = [len(batch) for batch in batches]

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.throughput.stop(self._sizes[step - 1])
        self.throughput.start()

    def on_epoch(self, result: EpochResult) -> None:
        self.ends.append(_End(cpu_seconds(), self.throughput.cpu))
        self.history = result.history
        self.best = result.best or self.best
        left = self._limit - self.ends[-1].cpu
        if self._say:
            row = result.history[-1]
            print(
                f"epoch {row['epoch']:.0f} of {self._epochs}: train_loss {row['train_loss']:.4f} "
                f"val_loss {row['val_loss']:.4f} val_dice {row['val_dice']:.4f}, "
                f"{left:.0f} CPU-s left",
                flush=True,
            )
        if 1 < len(self.ends) < self._epochs and self.ends[-1].cpu - self.ends[-2].cpu > left:
            raise _BudgetSpentError
        self.throughput.start()


def _predictor(config: FitConfig, best: bytes) -> Callable[[Pixels], Probabilities]:
    """The network of the best epoch."""
    weights = checkpoint.to_safetensors(checkpoint.from_bytes(best)["model"])
    model = inference.load_model(weights, build_model(config).architecture)

    def predict(images: Pixels) -> Probabilities:
        return inference.probabilities_of_all(model, images, precision=config.precision)

    return predict


def recipe_hash(network: str, size: int) -> str:
    """Of the code and the settings that train and predict."""
    files = sorted(Path(segmentation.__file__).parent.glob("*.py"))
    settings = repr(fit_config(network, size=size, epochs=1, seed=0)).encode()
    code = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(settings + code).hexdigest()[:12]


def main(folder: Path, name: str, seed: int, budget: float, network: str) -> None:
    train, val = (
        Films(*map(torch.from_numpy, read_split(folder, split))) for split in ("train", "val")
    )
    by = recipe_hash(network, train.images.shape[-1])
    trained = train_ours(train, val, network=network, seed=seed, budget=budget)
    found = {split: trained.predict(read_split(folder, split)[0]) for split in ("val", "test")}
    whole = {"trained_by": by, "process_cpu_seconds": cpu_seconds()}
    write_run(folder, name, trained.facts | whole, found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
