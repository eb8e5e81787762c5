"""Training: epochs of steps on the global batch, and the state from which a run resumes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
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
from jobs.segmentation.history import EpochRow, StepRow
from jobs.segmentation.losses import all_lung_loss, dice_loss
from jobs.segmentation.memory_probe import most_films
from jobs.segmentation.metrics import count_overlap, dice_from_counts
from jobs.segmentation.resumed_state import check_state
from jobs.segmentation.weights import load_weights

Ordered = TypeVar("Ordered", Indices, Tensor)
# Called after a step of the main rank with (epoch, step, steps of the epoch, loss), from 1.
OnStep = Callable[[int, int, int, float], None]

# The scale of a float16 loss at the start. PyTorch's 2^16 overflows in the first steps, which are
# then lost.
FIRST_SCALE = 2.0**10


@dataclass(frozen=True)
class EpochResult:
    """What a finished epoch leaves to be written.

    history: the rows of all epochs so far.
    last: a checkpoint to resume from; it holds the best epoch's model under "best".
    best: a checkpoint of the model alone where this epoch has the highest val_dice so far.
    """

    history: list[EpochRow]
    last: bytes
    best: bytes | None


class Trainer:
    """A U-Net in training: from the seed's weights, or from those of another model.

    Args:
        state: a `last` checkpoint to resume from.
        weights: safetensors of another model of the same architecture to start from.

    Every rank makes one with equal arguments. Its state changes in `take_step` and at the end of an
    epoch alone, so another thread may call `state` at any time. A resumed run and an unbroken one
    give equal bits on a CPU.

    Raises BadDataError for an empty split, for a `state` that is damaged or of another config, and
    for `weights` that are damaged or of another architecture.
    """

    def __init__(
        self,
        config: FitConfig,
        train: Films,
        val: Films,
        state: bytes | None = None,
        weights: bytes | None = None,
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
        if weights is not None:
            load_weights(self.model, weights)
        share = self.share_of(min(config.batch_size, len(train)))
        self.films_at_once = most_films(self.model, config, share, self.device)
        self.network = data_parallel(self.model, self.device)
        self.optimizer = build_optimizer(self.model, config)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=config.learning_rate,
            epochs=config.epochs,
            steps_per_epoch=self.steps_per_epoch,
        )
        is_float16 = arithmetic(self.device, config.precision) == torch.float16
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=FIRST_SCALE, enabled=is_float16
        )
        self.history: list[EpochRow] = []
        # Of the epoch in progress: the steps done, and their seconds.
        self.steps: list[StepRow] = []
        self.seconds = 0.0
        self.best: dict[str, Any] | None = None
        if state is not None:
            self.resume(state)
        # The model's buffers as of the last whole step: the forward pass changes them midway.
        self.statistics = [buffer.clone() for buffer in self.model.buffers()]
        self.lock = threading.Lock()

    def epochs(self, on_step: OnStep | None = None) -> Iterator[EpochResult]:
        """Train to the last epoch; yields after every epoch, in the main rank only.

        Raises BadDataError for a loss that is not finite, ConfigError where memory runs out.
        """
        for epoch in range(len(self.history) + 1, self.config.epochs + 1):
            try:
                self.run_epoch(epoch, on_step)
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"{self.films_at_once} films at once do not fit into the memory of "
                    f"{self.device} after all: give a smaller --batch-size, --network or --size"
                ) from error
            if is_main():
                yield self.result()

    def run_epoch(self, epoch: int, on_step: OnStep | None = None) -> None:
        """Train on every film once, validate, and add a row to the history."""
        started = time.perf_counter() - self.seconds
        self.train_epoch(epoch, on_step)
        trained = time.perf_counter()
        val_loss, val_dice = self.validate()
        row: EpochRow = {
            "epoch": epoch,
            "train_loss": mean(step["loss"] for step in self.steps),
            "val_loss": val_loss,
            "val_dice": val_dice,
            "learning_rate": self.steps[-1]["learning_rate"],
            "lung_fraction": self.lung_fraction,
            "all_lung_loss": all_lung_loss(self.lung_fraction),
            "seconds": time.perf_counter() - started,
            "images_per_second": len(self.train) / (trained - started),
            "data_wait": sum(step["data_wait"] for step in self.steps) / (trained - started),
        }
        self.end_epoch(row)

    def train_epoch(self, epoch: int, on_step: OnStep | None) -> None:
        """The steps of the epoch that are not in `steps` yet."""
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

    def train_step(self, epoch: int, step: int, batch: Indices) -> StepRow:
        """One update of the weights from this rank's slice of the global batch."""
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
        """The loss () of the global batch, and its gradients; forward and backward in `parts`.

        In several parts, a first pass computes the logits and the gradient of the whole batch's
        loss by them; a second pass takes this gradient back through the network, part by part. Loss
        and gradient are those of the whole batch; only the normalisation is by part.

        Args:
            inputs: (B, 1, H, W) float32, standardized. target: (B, 1, H, W) float32, 0 or 1.
        """
        if parts == 1:
            loss = dice_loss(self.logits(self.network, inputs), target)
            self.scaler.scale(loss).backward()
            return loss
        slices = inputs.tensor_split(parts)
        with torch.no_grad():
            logits = torch.cat([self.logits(self.network, part) for part in slices])
        # The second pass updates the statistics; those of the first pass are undone.
        torch._foreach_copy_(list(self.model.buffers()), self.statistics)
        logits.requires_grad_()
        loss = dice_loss(logits, target)
        self.scaler.scale(loss).backward()
        assert logits.grad is not None
        gradients = logits.grad.tensor_split(parts)
        for number, (part, gradient) in enumerate(zip(slices, gradients, strict=True), start=1):
            with summing_gradients(self.network, now=number == parts):
                self.logits(self.network, part).backward(gradient)
        return loss

    def take_step(self, epoch: int, step: int, loss: Tensor, data_wait: float) -> StepRow:
        """Update the weights, the optimizer, the schedule and the statistics, all or none."""
        learning_rate = float(self.scheduler.get_last_lr()[0])
        row: StepRow = {
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

    def end_epoch(self, row: EpochRow) -> None:
        """Add the row to the history, and keep the model where its val_dice is the highest."""
        improved = all(row["val_dice"] > earlier["val_dice"] for earlier in self.history)
        with self.lock:
            self.history.append(row)
            self.steps, self.seconds = [], 0.0
            if improved:
                self.best = self.model_of(row["epoch"])

    @torch.inference_mode()
    def validate(self) -> tuple[float, float]:
        """(val_loss, val_dice): the training loss at the same batch size, the mean hard Dice."""
        self.model.eval()
        batches = global_batches(np.arange(len(self.val)), self.config.batch_size)
        steps = [self.val_step(batch) for batch in batches]
        dice = torch.tensor(sum(dice for _, dice in steps), dtype=torch.float64)
        val_dice = global_sum(dice.to(self.device)).item() / len(self.val)
        return mean(loss for loss, _ in steps), val_dice

    def val_step(self, batch: Indices) -> tuple[float, float]:
        """(loss of the global batch, sum of the Dice of this rank's films)."""
        images, masks = self.val.batch(self.slice_of(batch), self.device)
        parts = max(1, -(-len(images) // self.films_at_once))
        slices = standardize(images).tensor_split(parts)
        logits = torch.cat([self.logits(self.model, part) for part in slices])
        counts = count_overlap(logits[:, 0] >= 0, masks.bool())
        loss = dice_loss(logits, masks[:, None]).item()
        return loss, float(dice_from_counts(*(count.cpu() for count in counts)).sum())

    def logits(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Logits (B, 1, H, W), in the precision of the config."""
        with autocast(self.device, self.config.precision):
            logits: Tensor = network(inputs)
        return logits

    def slice_of(self, batch: Ordered) -> Ordered:
        """This rank's part of the global batch, or of anything in its order."""
        part: Ordered = batch[self.rank :: self.world_size]
        return part

    def share_of(self, films: int) -> int:
        """The largest number of films that one rank has of a global batch of `films`."""
        return -(-films // self.world_size)

    def result(self) -> EpochResult:
        """The result of the epoch that ended last."""
        assert self.best is not None
        improved = self.best["epoch"] == self.history[-1]["epoch"]
        return EpochResult(
            history=list(self.history),
            last=self.state(),
            best=checkpoint.to_bytes(self.best) if improved else None,
        )

    def model_of(self, epoch: int) -> dict[str, Any]:
        """A `best` checkpoint: a copy of the model as it is at the end of `epoch`."""
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return {"model": weights, "config": asdict(self.config), "epoch": epoch}

    def state(self) -> bytes:
        """A `last` checkpoint as of the last whole step; any thread may call this."""
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
        """Continue from a `last` checkpoint of the same config."""
        saved = checkpoint.from_bytes(state)
        config = asdict(self.config)
        if saved.get("config") != config:
            raise BadDataError(
                f"the checkpoint is of {saved.get('config')}, this run of {config}: train with "
                "--force"
            )
        groups = self.optimizer.state_dict()["param_groups"]
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        fresh = {
            "model": self.model.state_dict(),
            "config": config,
            "optimizer": {"state": dict(enumerate(weights)), "param_groups": groups},
            "scheduler": self.scheduler.state_dict(),
        }
        check_state(saved, fresh, self.config.epochs, self.steps_per_epoch)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        # Empty where the device that saved it did not compute in float16.
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.best = saved["best"]
        self.history = saved["history"]
        self.steps, self.seconds = saved["steps"], saved["seconds"]


def finite(loss: Tensor, epoch: int, step: int, learning_rate: float) -> float:
    """The loss as a number. Raises BadDataError where it is infinite or not a number."""
    value = loss.item()
    if not math.isfinite(value):
        raise BadDataError(
            f"the loss is {value} at epoch {epoch}, step {step}, with learning rate "
            f"{learning_rate:.2g}: give a lower --learning-rate or --precision float32"
        )
    return value


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
