"""The dtype that a device computes in, and how many films its memory holds."""

from __future__ import annotations

import logging
from pathlib import Path

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


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    device.log_device.cache_clear()
    caplog.set_level(logging.INFO)
    return caplog


def test_the_log_says_once_on_how_many_threads_and_in_which_numbers_a_cpu_computes(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    for _ in range(2):
        device.log_device("float32")
    device.log_device("bfloat16", 2)
    assert log.messages == [
        "computing on the CPU in float32, processes 1, threads 6 each",
        "computing on the CPU in bfloat16, processes 2, threads 3 each",
    ]


def test_the_log_has_the_names_of_the_gpus_that_compute(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["NVIDIA H200", "NVIDIA H200", "NVIDIA A100", "NVIDIA T4"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: names[number])
    device.log_device("bfloat16", 3)
    assert log.messages == ["computing on GPUs in bfloat16: 2 x NVIDIA H200, 1 x NVIDIA A100"]


def test_a_build_of_torch_that_cannot_use_the_machines_gpu_is_a_warning_with_the_remedy(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "GPU_DRIVER", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    device.log_device("float32")
    assert "build with TORCH=cuda" in log.messages[1]
    assert log.records[1].levelno == logging.WARNING
