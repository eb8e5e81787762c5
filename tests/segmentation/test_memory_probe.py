"""Training within a device's limits: films in parts, other dtypes, memory that stays flat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import ConfigError
from jobs.segmentation import checkpoint, memory_probe
from jobs.segmentation.dataset import load_cache, write_cache
from jobs.segmentation.distributed import rank
from jobs.segmentation.fit_config import FitConfig, build_model
from jobs.segmentation.history import EpochRow
from jobs.segmentation.trainer import FIRST_SCALE, EpochResult, Trainer
from tests.support.fits import SMALL, TRAIN, VAL, assert_same_history, history_of_rank, run
from tests.support.ranks import run_ranks


@pytest.fixture(scope="module")
def unbroken() -> list[EpochResult]:
    return run()


def history_in_parts() -> tuple[bool, list[EpochRow]]:
    """As on a device whose memory holds one film."""
    memory_probe.most_that_fit = lambda attempt, films, device: 1
    return history_of_rank(SMALL, None)


@pytest.mark.slow
def test_ranks_that_train_in_parts_have_the_history_of_one_process() -> None:
    ranks = run_ranks(history_in_parts, 2)
    assert_same_history(ranks, history_in_parts_of(SMALL, 2))


def history_in_parts_of(config: FitConfig, films_at_once: int) -> list[EpochRow]:
    trainer = Trainer(config, TRAIN, VAL)
    trainer.films_at_once = films_at_once
    *_, last = trainer.epochs()
    return last.history


def probe_more_often_than_rank_0() -> int:
    """Rank r probes r + 1 times before 4 - r films fit."""

    def probe(attempt: Callable[[int], None], films: int, device: torch.device) -> int:
        for _ in range(rank() + 1):
            attempt(films)
        return films - rank()

    memory_probe.most_that_fit = probe
    return memory_probe.most_films(build_model(SMALL), SMALL, 4, torch.device("cpu"))


def test_a_rank_probes_without_the_others_and_the_least_number_of_films_counts() -> None:
    assert run_ranks(probe_more_often_than_rank_0, 3) == [2, 2, 2]


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_give_the_loss_and_gradient_of_the_whole(parts: int) -> None:
    trainer = Trainer(SMALL, TRAIN, VAL)
    # Evaluation mode: in training mode each part would be normalised by statistics of its own.
    network = trainer.model.double().eval()
    trainer.statistics = [buffer.clone() for buffer in network.buffers()]
    images, masks = TRAIN.images[:, None].double() / 255, TRAIN.masks[:, None].double()

    def step(parts: int) -> list[torch.Tensor]:
        network.zero_grad()
        loss = trainer.backward(images, masks, parts)
        return [loss.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]

    for result, expected in zip(step(parts), step(1), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_parts_of_a_batch_count_once_in_the_running_statistics() -> None:
    trainer = Trainer(SMALL, TRAIN, VAL)
    trainer.films_at_once = 2
    trainer.train_step(1, 1, np.arange(4))
    counted = [b for name, b in trainer.model.named_buffers() if name.endswith("batches_tracked")]
    assert counted and all(number == 2 for number in counted), "two parts of two films"


def test_float16_trains_near_float32(unbroken: list[EpochResult]) -> None:
    config = dataclasses.replace(SMALL, precision="float16")
    history = run(config)[-1].history
    expected = unbroken[-1].history[-1]["train_loss"]
    assert history[-1]["train_loss"] == pytest.approx(expected, abs=0.02)
    scale = checkpoint.from_bytes(Trainer(config, TRAIN, VAL).state())["scaler"]["scale"]
    assert scale == FIRST_SCALE


def test_a_float32_run_resumes_in_float16(
    unbroken: list[EpochResult],
) -> None:
    """As a training with the precision auto that resumes on an older GPU."""
    config = dataclasses.replace(SMALL, precision="float16")
    settings = {"config": dataclasses.asdict(config)}
    saved = checkpoint.from_bytes(unbroken[0].last) | settings
    saved["best"] |= settings
    trainer = Trainer(config, TRAIN, VAL, checkpoint.to_bytes(saved))
    assert saved["scaler"] == {}
    assert trainer.scaler.get_scale() == FIRST_SCALE
    assert len(trainer.history) == 1


def test_the_probe_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    def attempt_once(attempt: Callable[[int], None], films: int, device: torch.device) -> int:
        attempt(films)
        attempts.append(films)
        return films

    expected = Trainer(SMALL, TRAIN, VAL).state()
    monkeypatch.setattr(memory_probe, "most_that_fit", attempt_once)
    trainer = Trainer(SMALL, TRAIN, VAL)
    assert attempts == [SMALL.batch_size]
    assert trainer.state() == expected
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


@pytest.mark.parametrize("films_at_once", [1, 2])
def test_validation_takes_no_more_films_at_once_than_fit(films_at_once: int) -> None:
    trainer = Trainer(SMALL, TRAIN, VAL)
    whole = trainer.validate()
    trainer.films_at_once = films_at_once
    sizes: list[int] = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    assert trainer.validate() == pytest.approx(whole, abs=1e-6)
    assert max(sizes) <= films_at_once and sum(sizes) == len(VAL)


def test_running_out_of_memory_after_all_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError

    trainer = Trainer(SMALL, TRAIN, VAL)
    monkeypatch.setattr(trainer, "train_step", fail)
    with pytest.raises(ConfigError, match="--batch-size"):
        list(trainer.epochs())


@pytest.mark.slow
def test_memory_is_flat_over_twenty_thousand_films(tmp_path: Path) -> None:
    """Without the films, which are mapped and shared with the disk's cache."""
    image, mask = TRAIN.images[0].numpy(), TRAIN.masks[0].numpy()
    write_cache(tmp_path, ((image, mask) for _ in range(20_000)), 20_000, 32)
    config = dataclasses.replace(SMALL, epochs=1, batch_size=100)
    trainer = Trainer(config, load_cache(tmp_path), VAL)
    used: list[int] = []
    list(trainer.epochs(lambda *_: used.append(own_memory())))
    assert len(used) == 200
    assert used[-1] < 1.05 * used[20]


def own_memory() -> int:
    """This process's anonymous memory in kB; Linux only."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0])


def test_bfloat16_trains_near_float32(unbroken: list[EpochResult]) -> None:
    history = run(dataclasses.replace(SMALL, precision="bfloat16"))[-1].history
    assert history[-1]["train_loss"] == pytest.approx(
        unbroken[-1].history[-1]["train_loss"], abs=0.02
    )
    assert history[-1]["train_loss"] != unbroken[-1].history[-1]["train_loss"]
