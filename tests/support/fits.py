"""Trainings small enough for a test: their films, their settings and what they leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from jobs.segmentation import trainer
from jobs.segmentation.dataset import Films
from jobs.segmentation.distributed import is_main
from jobs.segmentation.fit_config import FitConfig
from jobs.segmentation.trainer import EpochResult, fit

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
    """Two dark ellipses on noise, and they are the mask."""
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


def run(config: FitConfig = SMALL, **arguments: Any) -> list[EpochResult]:
    results: list[EpochResult] = []
    fit(config, TRAIN, VAL, on_epoch=results.append, **arguments)
    return results


def without_timings(history: list[trainer.Row]) -> list[trainer.Row]:
    return [{name: row[name] for name in row.keys() - TIMINGS} for row in history]


def history_of_fit(config: FitConfig, state: bytes | None) -> tuple[bool, list[trainer.Row]]:
    results = run(config, state=state)
    return is_main(), results[-1].history if results else []


def assert_same_history(
    found: list[tuple[bool, list[trainer.Row]]], expected: list[trainer.Row]
) -> None:
    (main, history), *others = found
    assert main and all(other == (False, []) for other in others), "only the main rank is called"
    for row, alone in zip(history, expected, strict=True):
        assert row.keys() == alone.keys()
        for name in alone.keys() - TIMINGS:
            assert row[name] == pytest.approx(alone[name], abs=1e-5), name
