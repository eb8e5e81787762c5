"""The dtype that a device computes in, and how many films its memory holds."""

from __future__ import annotations

import pytest
import torch

from jobs.errors import ConfigError
from jobs.segmentation import device
from jobs.segmentation.device import arithmetic, autocast, most_that_fit

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("target", "bfloat16", "expected"),
    [
        (CPU, True, torch.bfloat16),
        (CPU, False, torch.float32),
        (GPU, True, torch.bfloat16),
        (GPU, False, torch.float16),
    ],
)
def test_auto_is_the_fastest_dtype_of_the_device(
    target: torch.device, bfloat16: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "computes_bfloat16", lambda device: bfloat16)
    assert arithmetic(target, "auto") == expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_named_precision_is_used(precision: str) -> None:
    assert arithmetic(CPU, precision) == getattr(torch, precision)
    layer = torch.nn.Linear(2, 2)
    with autocast(CPU, precision):
        assert layer(torch.zeros(1, 2)).dtype == getattr(torch, precision)


@pytest.mark.parametrize(
    ("films", "room", "expected_attempts", "expected"),
    [(8, 8, [8], 8), (8, 3, [8, 4, 2], 2), (5, 3, [5, 3], 3), (7, 1, [7, 4, 2, 1], 1)],
)
def test_films_are_halved_until_they_fit(
    films: int, room: int, expected_attempts: list[int], expected: int
) -> None:
    attempts: list[int] = []

    def attempt(films: int) -> None:
        attempts.append(films)
        if films > room:
            raise torch.OutOfMemoryError

    assert most_that_fit(attempt, films, GPU) == expected
    assert attempts == expected_attempts


def test_one_film_that_does_not_fit_is_refused_with_a_remedy() -> None:
    def attempt(films: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(ConfigError, match=r"memory of cuda.*--network"):
        most_that_fit(attempt, 4, GPU)


def test_nothing_is_attempted_on_a_cpu() -> None:
    assert most_that_fit(lambda films: pytest.fail("attempted"), 8, CPU) == 8
