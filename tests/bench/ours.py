"""Train the project's network within a budget of CPU-seconds.

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

# TrainConfig requires a manifest's URI; nothing reads it here.
URI = "s3://bench/manifest.json"
# The trial training that measures an epoch's cost: epochs, steps per epoch, share of the budget.
TRIAL_EPOCHS, TRIAL_STEPS, TRIAL_SHARE = 10_000, 4, 0.04
# The share of the budget that the schedule is planned for: a one-cycle schedule that the budget
# cuts off ends at a high learning rate and trains badly.
PLANNED_SHARE = 0.9


@dataclass(frozen=True)
class Trained:
    """`predict` maps images, uint8 (N, S, S), to probabilities; `facts` describe the training."""

    predict: Callable[[Pixels], Probabilities]
    facts: dict[str, Any]


def fit_config(network: str, *, size: int, epochs: int, seed: int) -> FitConfig:
    """The job train's default settings for a network."""
    config = TrainConfig(out=URI, processed=URI, network=network, seed=seed)
    settings = {name: getattr(config, name) for name in SETTINGS} | {"epochs": epochs}
    return FitConfig(size=size, **NETWORKS[config.network], **settings)


def train_ours(train: Films, val: Films, *, network: str, seed: int, budget: float) -> Trained:
    """Train for at most `budget` CPU-seconds, which include the trial training.

    The schedule needs the number of epochs in advance; a short trial training measures the cost of
    an epoch.
    """
    # The first optimizer imports packages: that cost is not part of the training.
    torch.optim.SGD([torch.zeros(1)])
    started = cpu_seconds()

    def config_of(epochs: int) -> FitConfig:
        return fit_config(network, size=train.images.shape[-1], epochs=epochs, seed=seed)

    cost = epoch_cost(config_of(TRIAL_EPOCHS), train, val, started + TRIAL_SHARE * budget)
    remaining = PLANNED_SHARE * budget - (cpu_seconds() - started)
    config = config_of(epochs_within(remaining, cost))
    meter = _Meter(config, len(train), started + budget, verbose=True)
    meter.throughput.start()
    with contextlib.suppress(_BudgetSpentError):
        for result in Trainer(config, train, val).epochs(meter.on_step):
            meter.on_epoch(result)
    model = build_model(config)
    facts = {
        "epochs": len(meter.history),
        "planned_epochs": config.epochs,
        "cpu_seconds": cpu_seconds() - started,
        "peak_mebibytes": peak_mebibytes(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflops_per_film": gflops_per_film(model, config.size),
        **meter.throughput.figures(),
        "history": meter.history,
    }
    return Trained(_predictor(config, meter.best), facts)


def epoch_cost(config: FitConfig, train: Films, val: Films, limit: float) -> float:
    """CPU-seconds of an epoch, estimated from short epochs on some of the films.

    Trains until this process has used `limit` CPU-seconds. The first epoch does not count, because
    it allocates memory and selects convolution kernels.
    """
    count = min(len(train), TRIAL_STEPS * config.batch_size)
    meter = _Meter(config, count, limit, verbose=False)
    subset = Films(train.images[:count], train.masks[:count])
    with contextlib.suppress(_BudgetSpentError):
        for result in Trainer(config, subset, val).epochs(meter.on_step):
            meter.on_epoch(result)
    epochs = len(meter.ends) - 1
    whole = (meter.ends[-1].cpu - meter.ends[0].cpu) / epochs
    steps = (meter.ends[-1].in_steps - meter.ends[0].in_steps) / epochs
    # Only the steps grow with the number of films; validation is the same in every epoch.
    return steps / count * len(train) + whole - steps


class _BudgetSpentError(Exception):
    """Another epoch would exceed the budget."""


class _End(NamedTuple):
    """CPU-seconds up to the end of an epoch: of the process, and of its training steps."""

    cpu: float
    in_steps: float


class _Meter:
    """Records a training: the cost of its steps and epochs, its history, its best weights.

    Raises _BudgetSpentError before an epoch, from the third on, that would take this process's
    CPU-seconds past `limit`. With `verbose` it prints a line per epoch.
    """

    def __init__(self, config: FitConfig, films: int, limit: float, *, verbose: bool) -> None:
        self.throughput = Throughput()
        self.ends: list[_End] = []
        self.history: list[EpochRow] = []
        self.best = b""
        self._epochs = config.epochs
        self._limit = limit
        self._verbose = verbose
        batches = global_batches(np.arange(films), config.batch_size)
        self._batch_sizes = [len(batch) for batch in batches]

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.throughput.stop(self._batch_sizes[step - 1])
        self.throughput.start()

    def on_epoch(self, result: EpochResult) -> None:
        self.ends.append(_End(cpu_seconds(), self.throughput.cpu))
        self.history = result.history
        self.best = result.best or self.best
        remaining = self._limit - self.ends[-1].cpu
        if self._verbose:
            row = result.history[-1]
            print(
                f"epoch {row['epoch']:.0f} of {self._epochs}: train_loss {row['train_loss']:.4f} "
                f"val_loss {row['val_loss']:.4f} val_dice {row['val_dice']:.4f}, "
                f"{remaining:.0f} CPU-s left",
                flush=True,
            )
        if 1 < len(self.ends) < self._epochs:
            last_epoch = self.ends[-1].cpu - self.ends[-2].cpu
            if last_epoch > remaining:
                raise _BudgetSpentError
        self.throughput.start()


def _predictor(config: FitConfig, best: bytes) -> Callable[[Pixels], Probabilities]:
    """A function that computes probabilities with the weights of the best epoch."""
    weights = checkpoint.to_safetensors(checkpoint.from_bytes(best)["model"])
    model = inference.load_model(weights, build_model(config).architecture)

    def predict(images: Pixels) -> Probabilities:
        return inference.probabilities_of_all(model, images, precision=config.precision)

    return predict


def recipe_hash(network: str, size: int) -> str:
    """12 hex digits over the code of jobs.segmentation and the settings of a training."""
    files = sorted(Path(segmentation.__file__).parent.glob("*.py"))
    settings = repr(fit_config(network, size=size, epochs=1, seed=0)).encode()
    code = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(settings + code).hexdigest()[:12]


def main(folder: Path, name: str, seed: int, budget: float, network: str) -> None:
    train, val = (
        Films(*map(torch.from_numpy, read_split(folder, split))) for split in ("train", "val")
    )
    # Before the training, so that code that changes meanwhile is not recorded as the one that ran.
    trained_by = recipe_hash(network, train.images.shape[-1])
    trained = train_ours(train, val, network=network, seed=seed, budget=budget)
    probabilities = {
        split: trained.predict(read_split(folder, split)[0]) for split in ("val", "test")
    }
    process = {"trained_by": trained_by, "process_cpu_seconds": cpu_seconds()}
    write_run(folder, name, trained.facts | process, probabilities)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
