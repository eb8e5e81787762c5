"""Trainings small enough for a test: their films, settings and results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from jobs.segmentation.dataset import Films
from jobs.segmentation.distributed import is_main
from jobs.segmentation.fit_config import FitConfig
from jobs.segmentation.history import EpochRow
from jobs.segmentation.trainer import EpochResult, OnStep, Trainer

SMALL = FitConfig(
    size=32,
    epochs=3,
    batch_size=3,
    learning_rate=3e-3,
    weight_decay=1e-2,
    base_channels=4,
    depth=2,
    seed=0,
    precision="float32",
)
TIMINGS = {"seconds", "images_per_second", "data_wait"}


def films(count: int, seed: int, size: int = 32) -> Films:
    """Two dark ellipses on noise, which are the mask."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    masks = np.zeros((count, size, size), dtype=np.uint8)
    for mask in masks:
        for column in (0.3, 0.7):
            x, y = random.normal([column, 0.5], 0.03)
            a, b = random.uniform([0.1, 0.2], [0.15, 0.3])
            mask |= ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1
    noise = random.normal(0, 15, masks.shape)
    images = np.clip(150 - 90 * masks + noise, 0, 255).astype(np.uint8)
    return Films(torch.from_numpy(images), torch.from_numpy(masks))


TRAIN, VAL = films(7, seed=0), films(5, seed=1)


def run(
    config: FitConfig = SMALL, *, state: bytes | None = None, on_step: OnStep | None = None
) -> list[EpochResult]:
    """Train to the last epoch; the results of all epochs."""
    return list(Trainer(config, TRAIN, VAL, state).epochs(on_step))


def without_timings(history: list[EpochRow]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in history]


def history_of_rank(config: FitConfig, state: bytes | None) -> tuple[bool, list[EpochRow]]:
    """(whether this rank is the main one, its history; [] on another rank)."""
    results = run(config, state=state)
    return is_main(), results[-1].history if results else []


def assert_same_history(ranks: list[tuple[bool, list[EpochRow]]], expected: list[EpochRow]) -> None:
    """The main rank has the expected history but for rounding; the other ranks yield no epoch."""
    (main, history), *others = ranks
    assert main and all(other == (False, []) for other in others), "only the main rank yields"
    for row, alone in zip(without_timings(history), without_timings(expected), strict=True):
        assert row == pytest.approx(alone, abs=1e-5)
