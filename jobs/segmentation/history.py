"""The figures of an epoch and of a step, as history.json and checkpoints hold them: no torch."""

from __future__ import annotations

from typing import TypedDict


class StepRow(TypedDict):
    """The figures of one training step.

    loss: Dice loss of the global batch, 0..1. learning_rate: of this step.
    data_wait: seconds until the batch was on the device.
    """

    loss: float
    learning_rate: float
    data_wait: float


class EpochRow(TypedDict):
    """The figures of one epoch: an item of history.json, a line of history.csv.

    epoch: from 1. train_loss, val_loss: Dice loss 0..1, mean over the batches.
    val_dice: hard Dice at 0.5, 0..1, mean over the validation films. learning_rate: of the last
    step. lung_fraction: 0..1 of all training pixels. all_lung_loss: Dice loss 0..1 of a network
    that calls every pixel lung. seconds: training and validation. images_per_second: training films
    per second, without validation. data_wait: 0..1 of the training time.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_dice: float
    learning_rate: float
    lung_fraction: float
    all_lung_loss: float
    seconds: float
    images_per_second: float
    data_wait: float
