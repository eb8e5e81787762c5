"""Training: epochs of steps, each on the global batch, with everything a resumed run needs."""

from __future__ import annotations

import math
import threading
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
from jobs.segmentation.device import arithmetic, autocast, local_device
from jobs.segmentation.distributed import (
    data_parallel,
    global_sum,
    is_main,
    rank,
    summing_gradients,
    world_size,
)
from jobs.segmentation.fit_config import FitConfig, build_model, build_optimizer
from jobs.segmentation.losses import all_lung_loss, dice_loss
from jobs.segmentation.memory_probe import most_films
from jobs.segmentation.metrics import count_overlap, dice_from_counts

Row = dict[str, float]
Ordered = TypeVar("Ordered", Indices, Tensor)

# The usual first scale, 2^16, overflows in the first steps, which are then lost.
FIRST_SCALE = 2.0**10

OnStep = Callable[[int, int, int, float], None]


@dataclass(frozen=True)
class EpochResult:
    """What is to be kept after an epoch.

    history: a row an epoch so far: epoch, train_loss, val_loss, val_dice, learning_rate,
        lung_fraction, all_lung_loss, seconds, images_per_second, data_wait.
    last: a checkpoint to go on from; the best epoch's model is in it under "best".
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
    Trainer(config, train, val, state).run(on_epoch, on_step)


class Trainer:
    """The model and all that changes while it trains.

    It changes in `take_step` alone, so that between two of them `state` may be asked for from
    another thread at any time.
    """

    def __init__(
        self, config: FitConfig, train: Films, val: Films, state: bytes | None = None
    ) -> None:
        for name, films in (("training", train), ("validation", val)):
            if not len(films):
                raise BadDataError(f"there are no {name} films: give more films or a --split-file")
        self.config = config
        self.device = local_device()
        self.rank, self.world_size = rank(), world_size()
        self.train, self.val = train.to(self.device), val.to(self.device)
        self.steps_per_epoch = -(-len(train) // config.batch_size)
        self.lung_fraction = train.lung_fraction()
        self.model = build_model(config).to(self.device)
        whole = self.share_of(min(config.batch_size, len(train)))
        self.films_at_once = most_films(self.model, config, whole, self.device)
        self.network = data_parallel(self.model, self.device)
        self.optimizer = build_optimizer(self.model, config)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=config.learning_rate,
            epochs=config.epochs,
            steps_per_epoch=self.steps_per_epoch,
        )
        numbers = arithmetic(self.device, config.precision)
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=FIRST_SCALE, enabled=numbers == torch.float16
        )
        self.history: list[Row] = []
        self.steps: list[Row] = []
        self.seconds = 0.0
        self.best: dict[str, Any] | None = None
        if state is not None:
            self.resume(state)
        self.statistics = [buffer.clone() for buffer in self.model.buffers()]
        self.lock = threading.Lock()

    def run(self, on_epoch: Callable[[EpochResult], None], on_step: OnStep | None = None) -> None:
        """Train to the last epoch; as `fit` says."""
        for epoch in range(len(self.history) + 1, self.config.epochs + 1):
            try:
                self.run_epoch(epoch, on_step)
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"{self.films_at_once} films at once do not fit into the memory of "
                    f"{self.device} after all: give a smaller --batch-size, --network or --size"
                ) from error
            if is_main():
                on_epoch(self.result())

    def run_epoch(self, epoch: int, on_step: OnStep | None) -> None:
        """Train on every film once, validate, and add a row to the history."""
        started = time.perf_counter() - self.seconds
        self.train_epoch(epoch, on_step)
        trained = time.perf_counter()
        row = {"epoch": epoch, "train_loss": mean(step["loss"] for step in self.steps)}
        row |= self.validate()
        row |= {
            "learning_rate": self.steps[-1]["learning_rate"],
            "lung_fraction": self.lung_fraction,
            "all_lung_loss": all_lung_loss(self.lung_fraction),
            "seconds": time.perf_counter() - started,
            "images_per_second": len(self.train) / (trained - started),
            "data_wait": sum(step["data_wait"] for step in self.steps) / (trained - started),
        }
        improved = all(row["val_dice"] > before["val_dice"] for before in self.history)
        with self.lock:
            self.history.append(row)
            self.steps, self.seconds = [], 0.0
            if improved:
                self.best = self.of_this_epoch()

    def train_epoch(self, epoch: int, on_step: OnStep | None) -> None:
        """The epoch's steps that are not in `steps` yet."""
        started = time.perf_counter() - self.seconds
        self.network.train()
        order = shuffled(len(self.train), self.config.seed, epoch)
        batches = global_batches(order, self.config.batch_size)
        for step, batch in enumerate(batches, start=1):
            if step <= len(self.steps):
                continue
            row = self.train_step(epoch, step, batch)
            self.seconds = time.perf_counter() - started
            if on_step and is_main():
                on_step(epoch, step, len(batches), row["loss"])

    def train_step(self, epoch: int, step: int, batch: Indices) -> Row:
        """One update from this rank's slice of the global batch."""
        started = time.perf_counter()
        images, masks = self.train.batch(self.slice_of(batch), self.device)
        draws = self.slice_of(draw(self.config.seed, epoch, step, len(batch)))
        data_wait = time.perf_counter() - started
        inputs, target = augment(images, masks, draws)
        self.optimizer.zero_grad()
        parts = -(-self.share_of(len(batch)) // self.films_at_once)
        loss = self.backward(standardize(inputs), target, parts)
        return self.take_step(epoch, step, loss, data_wait)

    def backward(self, inputs: Tensor, target: Tensor, parts: int) -> Tensor:
        """The loss of the global batch, and its gradients; forward and back in `parts` parts.

        In several parts, a first pass finds the logits and with them the gradient of the whole
        batch's loss, which a second one takes back through the network a part at a time. Loss and
        gradient are the whole batch's; only the normalisation sees a part by itself.
        """
        if parts == 1:
            loss = dice_loss(self.logits(self.network, inputs), target)
            self.scaler.scale(loss).backward()
            return loss
        pieces = inputs.tensor_split(parts)
        with torch.no_grad():
            found = [self.logits(self.network, piece) for piece in pieces]
        torch._foreach_copy_(list(self.model.buffers()), self.statistics)
        logits = torch.cat(found).requires_grad_()
        loss = dice_loss(logits, target)
        self.scaler.scale(loss).backward()
        assert logits.grad is not None
        for number, (piece, gradient) in enumerate(
            zip(pieces, logits.grad.tensor_split(parts), strict=True), start=1
        ):
            with summing_gradients(self.network, now=number == parts):
                self.logits(self.network, piece).backward(gradient)
        return loss

    def take_step(self, epoch: int, step: int, loss: Tensor, data_wait: float) -> Row:
        """Change the weights by their gradients, and all else that changes with them."""
        learning_rate = float(self.scheduler.get_last_lr()[0])
        row = {
            "loss": finite(loss, epoch, step, learning_rate),
            "learning_rate": learning_rate,
            "data_wait": data_wait,
        }
        with self.lock:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.scheduler.step()
            torch._foreach_copy_(self.statistics, list(self.model.buffers()))
            self.steps.append(row)
        return row

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
        parts = max(1, -(-len(images) // self.films_at_once))
        pieces = standardize(images).tensor_split(parts)
        logits = torch.cat([self.logits(self.model, piece) for piece in pieces])
        counts = count_overlap(logits[:, 0] >= 0, masks.bool())
        return {
            "loss": dice_loss(logits, masks[:, None]).item(),
            "dice": float(dice_from_counts(*(count.cpu() for count in counts)).sum()),
        }

    def logits(self, network: nn.Module, inputs: Tensor) -> Tensor:
        with autocast(self.device, self.config.precision):
            logits: Tensor = network(inputs)
        return logits

    def slice_of(self, batch: Ordered) -> Ordered:
        """This rank's part of what is in the order of the global batch."""
        part: Ordered = batch[self.rank :: self.world_size]
        return part

    def share_of(self, films: int) -> int:
        """The films of a global batch that the rank with the most of them has."""
        return -(-films // self.world_size)

    def result(self) -> EpochResult:
        assert self.best is not None
        improved = self.best["epoch"] == self.history[-1]["epoch"]
        return EpochResult(
            history=list(self.history),
            last=self.state(),
            best=checkpoint.to_bytes(self.best) if improved else None,
        )

    def of_this_epoch(self) -> dict[str, Any]:
        """The model as it is, for itself."""
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        epoch = self.history[-1]["epoch"]
        return {"model": weights, "config": asdict(self.config), "epoch": epoch}

    def state(self) -> bytes:
        """A `last` checkpoint as of the last whole step; from any thread."""
        names = [name for name, _ in self.model.named_buffers()]
        with self.lock:
            statistics = dict(zip(names, self.statistics, strict=True))
            return checkpoint.to_bytes(
                {
                    "model": self.model.state_dict() | statistics,
                    "config": asdict(self.config),
                    "optimizer": self.optimizer.state_dict(),
                    "scheduler": self.scheduler.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "best": self.best,
                    "history": self.history,
                    "steps": self.steps,
                    "seconds": self.seconds,
                }
            )

    def resume(self, state: bytes) -> None:
        """Go on from a `last` checkpoint of the same config."""
        saved = checkpoint.from_bytes(state)
        if saved["config"] != asdict(self.config):
            raise BadDataError(
                f"the checkpoint is of {saved['config']}, this run of {asdict(self.config)}: train "
                "with --force"
            )
        if "best" not in saved:
            raise BadDataError("the checkpoint is of an earlier version: train with --force")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        if saved["scaler"]:  # empty where the device before this one needed none
            self.scaler.load_state_dict(saved["scaler"])
        self.best = saved["best"]
        self.history, self.steps, self.seconds = (
            saved[name] for name in ("history", "steps", "seconds")
        )


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
