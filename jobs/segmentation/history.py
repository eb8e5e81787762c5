"""The figures of an epoch and of a step, as history.json and checkpoints hold them: no torch."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict, cast

from jobs import typed_json
from jobs.errors import BadDataError
from jobs.typed_json import Count, Fraction, Range

Positive = Annotated[float, Range(0)]
# A loss or a mean Dice, 0..1 but for the rounding of float32.
Rounded = Annotated[float, Range(-1e-5, 1 + 1e-5)]


class StepRow(TypedDict):
    """The figures of one training step.

    loss: Dice loss of the global batch, 0..1. learning_rate: of this step.
    data_wait: seconds until the batch was on the device.
    """

    loss: Rounded
    learning_rate: Positive
    data_wait: Positive


class EpochRow(TypedDict):
    """The figures of one epoch: an item of history.json, a line of history.csv.

    epoch: from 1. train_loss, val_loss: Dice loss 0..1, mean over the batches.
    val_dice: hard Dice at 0.5, 0..1, mean over the validation films. learning_rate: of the last
    step. lung_fraction: 0..1 of all training pixels. all_lung_loss: Dice loss 0..1 of a network
    that calls every pixel lung. seconds: training and validation. images_per_second: training films
    per second, without validation. data_wait: 0..1 of the training time.
    """

    epoch: Count
    train_loss: Rounded
    val_loss: Rounded
    val_dice: Rounded
    learning_rate: Positive
    lung_fraction: Fraction
    all_lung_loss: Rounded
    seconds: Positive
    images_per_second: Positive
    data_wait: Positive


class History(TypedDict):
    """The content of history.json."""

    epochs: list[EpochRow]


def parse_history(data: bytes, name: str) -> list[EpochRow]:
    """The rows of history.json, at least one; BadDataError, naming `name`, where it is not one."""
    value = typed_json.check(typed_json.parse(data, name), History, name)
    if not value["epochs"]:
        raise BadDataError(f"{name} has no epochs: {typed_json.REMEDY}")
    return check_epochs(value["epochs"], name)


def check_epochs(epochs: Any, name: str) -> list[EpochRow]:
    """`epochs`, the rows of the first epochs in order; BadDataError, naming `name`, otherwise."""
    rows = cast("list[EpochRow]", typed_json.check(epochs, list[EpochRow], name))
    if (numbers := [row["epoch"] for row in rows]) != [*range(1, len(rows) + 1)]:
        raise BadDataError(
            f"{name} has the epochs {numbers[:20]}, not 1 to {len(rows)}: {typed_json.REMEDY}"
        )
    return rows
