"""Training: epochs of steps, each on the global batch, with everything a resumed run needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from jobs.errors import BadDataError, ConfigError
from jobs.segmentation import checkpoint
from jobs.segmentation.augment import augment, draw, standardize
from jobs.segmentation.dataset import Films, Indices, global_batches, shuffled
from jobs.segmentation.device import autocast, local_device
from jobs.segmentation.distributed import data_parallel, global_sum, is_main, rank, world_size
from jobs.segmentation.losses import all_lung_loss, dice_loss
from jobs.segmentation.metrics import count_overlap, dice_from_counts
from jobs.segmentation.unet import UNet

Row = dict[str, float]
Ordered = TypeVar("Ordered", Indices, Tensor)
OnStep = Callable[[int, int, int, float], None]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What a training run computes; `batch_size` counts the films of all processes together."""

    size: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    base_channels: int
    depth: int
    seed: int
    precision: str

    def __post_init__(self) -> None:
        smallest = 2 ** (self.depth + 1)
        if self.size % (smallest // 2) or self.size < smallest:
            raise ConfigError(
                f"--size {self.size} does not fit --depth {self.depth}: give a multiple of "
                f"{smallest // 2} from {smallest} on, or a smaller depth"
            )


@dataclass(frozen=True)
class EpochResult:
    """What is to be kept after an epoch.

    history: a row an epoch so far: epoch, train_loss, val_loss, val_dice, learning_rate,
        lung_fraction, all_lung_loss, seconds, images_per_second, data_wait.
    last: a checkpoint to go on from.
    best: a checkpoint of the model alone, when this epoch has the highest val_dice so far.
    """

    history: list[Row]
    last: bytes
    best: bytes | None


def fit(
    config: FitConfig,
    train: Films,
    val: Films,
    *,
    state: bytes | None = None,
    on_epoch: Callable[[EpochResult], None],
    on_step: OnStep | None = None,
) -> None:
    """Train a U-Net from scratch, or from `state`, a `last` checkpoint, to the last epoch.

    Every process calls it with equal arguments; `on_epoch` and `on_step` (epoch, step, steps, loss)
    are called in the main one only. An unbroken run and a resumed one give equal bits on a CPU.

    Raises BadDataError for an empty split, a loss that is not finite, or a `state` that is damaged
    or of another config.
    """
    trainer = Trainer(config, train, val)
    if state is not None:
        trainer.resume(state)
    for epoch in range(len(trainer.history) + 1, config.epochs + 1):
        trainer.run_epoch(epoch, on_step)
        if is_main():
            on_epoch(trainer.result())


class Trainer:
    """The model and all that changes while it trains."""

    def __init__(self, config: FitConfig, train: Films, val: Films) -> None:
        for name, films in (("training", train), ("validation", val)):
            if not len(films):
                raise BadDataError(f"there are no {name} films: give more films or a --split-file")
        self.config = config
        self.device = local_device()
        self.rank, self.world_size = rank(), world_size()
        self.train, self.val = train.to(self.device), val.to(self.device)
        self.lung_fraction = train.lung_fraction()
        self.model = build_model(config).to(self.device)
        self.network = data_parallel(self.model, self.device)
        self.optimizer = build_optimizer(self.model, config)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=config.learning_rate,
            epochs=config.epochs,
            steps_per_epoch=-(-len(train) // config.batch_size),
        )
        self.history: list[Row] = []

    def run_epoch(self, epoch: int, on_step: OnStep | None) -> None:
        """Train on every film once, validate, and add a row to the history."""
        started = time.perf_counter()
        steps = self.train_epoch(epoch, on_step)
        trained = time.perf_counter()
        row = {"epoch": epoch, "train_loss": mean(step["loss"] for step in steps)}
        row |= self.validate()
        row |= {
            "learning_rate": steps[-1]["learning_rate"],
            "lung_fraction": self.lung_fraction,
            "all_lung_loss": all_lung_loss(self.lung_fraction),
            "seconds": time.perf_counter() - started,
            "images_per_second": len(self.train) / (trained - started),
            "data_wait": sum(step["data_wait"] for step in steps) / (trained - started),
        }
        self.history.append(row)

    def train_epoch(self, epoch: int, on_step: OnStep | None) -> list[Row]:
        self.network.train()
        order = shuffled(len(self.train), self.config.seed, epoch)
        batches = global_batches(order, self.config.batch_size)
        rows = []
        for step, batch in enumerate(batches, start=1):
            rows.append(self.train_step(epoch, step, batch))
            if on_step and is_main():
                on_step(epoch, step, len(batches), rows[-1]["loss"])
        return rows

    def train_step(self, epoch: int, step: int, batch: Indices) -> Row:
        """One update from this rank's slice of the global batch."""
        learning_rate = float(self.scheduler.get_last_lr()[0])
        started = time.perf_counter()
        images, masks = self.train.batch(self.slice_of(batch), self.device)
        draws = self.slice_of(draw(self.config.seed, epoch, step, len(batch))).to(self.device)
        data_wait = time.perf_counter() - started
        augmented, target = augment(images, masks, draws)
        self.optimizer.zero_grad()
        loss = dice_loss(self.logits(self.network, augmented), target)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return {
            "loss": finite(loss, epoch, step, learning_rate),
            "learning_rate": learning_rate,
            "data_wait": data_wait,
        }

    @torch.inference_mode()
    def validate(self) -> Row:
        """The training loss, over batches of the same size, and the mean Dice over films."""
        self.model.eval()
        batches = global_batches(np.arange(len(self.val)), self.config.batch_size)
        steps = [self.val_step(batch) for batch in batches]
        dice = torch.tensor(sum(step["dice"] for step in steps), dtype=torch.float64)
        return {
            "val_loss": mean(step["loss"] for step in steps),
            "val_dice": global_sum(dice.to(self.device)).item() / len(self.val),
        }

    def val_step(self, batch: Indices) -> Row:
        """The loss of the global batch and the summed Dice of this rank's films."""
        images, masks = self.val.batch(self.slice_of(batch), self.device)
        logits = self.logits(self.model, images)
        counts = count_overlap(logits[:, 0] >= 0, masks.bool())
        return {
            "loss": dice_loss(logits, masks[:, None]).item(),
            "dice": float(dice_from_counts(*(count.cpu() for count in counts)).sum()),
        }

    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        inputs = standardize(images)
        with autocast(self.device, self.config.precision):
            logits: Tensor = network(inputs)
        return logits

    def slice_of(self, batch: Ordered) -> Ordered:
        """This rank's part of what is in the order of the global batch."""
        part: Ordered = batch[self.rank :: self.world_size]
        return part

    def result(self) -> EpochResult:
        *earlier, row = self.history
        model = {"model": self.model.state_dict(), "config": asdict(self.config)}
        everything = model | {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": self.history,
        }
        improved = all(row["val_dice"] > before["val_dice"] for before in earlier)
        return EpochResult(
            history=list(self.history),
            last=checkpoint.to_bytes(everything),
            best=checkpoint.to_bytes(model | {"epoch": row["epoch"]}) if improved else None,
        )

    def resume(self, state: bytes) -> None:
        """Go on from a `last` checkpoint of the same config."""
        saved = checkpoint.from_bytes(state)
        if saved["config"] != asdict(self.config):
            raise BadDataError(
                f"the checkpoint is of {saved['config']}, this run of {asdict(self.config)}: train "
                "with --force"
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.history = saved["history"]


def build_model(config: FitConfig) -> UNet:
    """A U-Net with the weights of `config.seed`, the same on every device and rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return UNet(base_channels=config.base_channels, depth=config.depth)


def build_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """AdamW that decays the weights of convolutions, not biases or normalisations."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def finite(loss: Tensor, epoch: int, step: int, learning_rate: float) -> float:
    """The loss as a number. Raises BadDataError when it is none."""
    value = loss.item()
    if not math.isfinite(value):
        raise BadDataError(
            f"the loss is {value} at epoch {epoch}, step {step}, with learning rate "
            f"{learning_rate:.2g}: give a lower --learning-rate or --precision float32"
        )
    return value


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
