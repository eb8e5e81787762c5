"""Training: it learns, resumes bit-identical, and several processes compute what one does."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import BadDataError, ConfigError
from jobs.segmentation import checkpoint, inference, metrics
from jobs.segmentation.augment import DRAWS
from jobs.segmentation.fit_config import build_model, build_optimizer
from jobs.segmentation.trainer import EpochResult, Trainer
from tests.support.fits import (
    SMALL,
    TRAIN,
    VAL,
    assert_same_history,
    films,
    history_of_rank,
    run,
    without_timings,
)
from tests.support.ranks import run_ranks


@pytest.fixture(scope="module")
def unbroken() -> list[EpochResult]:
    return run()


def test_a_few_epochs_segment_the_ellipses() -> None:
    config = dataclasses.replace(SMALL, epochs=25, base_channels=8, learning_rate=1e-2)
    history = run(config)[-1].history
    assert history[-1]["val_dice"] > 0.9 > 0.7 > history[0]["val_dice"]
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2


def test_one_batch_without_augmentation_is_learnt_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.segmentation.trainer.draw", lambda *key: torch.zeros(key[-1], DRAWS))
    config = dataclasses.replace(SMALL, epochs=40, batch_size=7, learning_rate=0.1)
    trainer = Trainer(config, TRAIN, VAL)
    losses = [
        trainer.train_step(step, 1, np.arange(7))["loss"] for step in range(1, config.epochs + 1)
    ]
    assert losses[-1] < 0.05 < 0.4 < losses[0]


def test_the_history_has_a_row_per_epoch_with_the_all_lung_loss(
    unbroken: list[EpochResult],
) -> None:
    assert [len(result.history) for result in unbroken] == [1, 2, 3]
    fraction = TRAIN.masks.double().mean().item()
    for epoch, row in enumerate(unbroken[-1].history, start=1):
        assert row["epoch"] == epoch
        assert row["lung_fraction"] == pytest.approx(fraction)
        assert row["all_lung_loss"] == pytest.approx(1 - 2 * fraction / (1 + fraction))
        assert 0 < row["train_loss"] < 1 and 0 < row["val_loss"] < 1 and 0 <= row["val_dice"] <= 1
        assert row["seconds"] > 0 and row["images_per_second"] > 0 and 0 <= row["data_wait"] <= 1
    rates = [row["learning_rate"] for row in unbroken[-1].history]
    assert max(rates) == rates[0] > rates[1] > rates[2] > 0


def test_validation_figures_are_those_of_the_saved_model(unbroken: list[EpochResult]) -> None:
    result = unbroken[-1]
    weights = checkpoint.from_bytes(result.last)["model"]
    architecture = build_model(SMALL).architecture
    model = inference.load_model(checkpoint.to_safetensors(weights), architecture)
    lung = inference.probabilities(model, VAL.images.numpy(), precision="float32").astype(float)
    masks = VAL.masks.numpy()
    dices = [metrics.dice(p >= 0.5, mask > 0) for p, mask in zip(lung, masks, strict=True)]
    assert result.history[-1]["val_dice"] == pytest.approx(np.mean(dices), abs=1e-9)
    losses = [
        1 - (2 * (lung[b] * masks[b]).sum() + 1) / (lung[b].sum() + masks[b].sum() + 1)
        for b in (slice(0, 3), slice(3, 5))
    ]
    assert result.history[-1]["val_loss"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_only_an_epoch_better_than_all_before_has_a_best_checkpoint(
    unbroken: list[EpochResult],
) -> None:
    best = 0.0
    for result in unbroken:
        row = result.history[-1]
        assert (result.best is not None) == (row["val_dice"] > best)
        best = max(best, row["val_dice"])
        if result.best is not None:
            saved, last = map(checkpoint.from_bytes, (result.best, result.last))
            assert saved.keys() == {"model", "config", "epoch"} and saved["epoch"] == row["epoch"]
            assert checkpoint.to_bytes(last["best"]) == result.best
            assert all(
                torch.equal(saved["model"][name], last["model"][name]) for name in last["model"]
            )


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_run_is_bit_identical_to_an_unbroken_one(
    unbroken: list[EpochResult], epoch: int
) -> None:
    resumed = run(state=unbroken[epoch - 1].last)
    assert len(resumed) == SMALL.epochs - epoch
    for result, expected in zip(resumed, unbroken[epoch:], strict=True):
        assert without_timings(result.history) == without_timings(expected.history)
        assert result.best == expected.best
        assert state_of(result) == state_of(expected)


def state_of(result: EpochResult) -> bytes:
    saved = checkpoint.from_bytes(result.last)
    return checkpoint.to_bytes(saved | {"history": without_timings(saved["history"])})


class StoppedError(Exception):
    pass


def stop_after(last: tuple[int, int]) -> bytes:
    """The state of a run that is stopped after (epoch, step)."""
    trainer = Trainer(SMALL, TRAIN, VAL)

    def stop(epoch: int, step: int, steps: int, loss: float) -> None:
        if (epoch, step) == last:
            raise StoppedError

    with pytest.raises(StoppedError):
        list(trainer.epochs(stop))
    return trainer.state()


@pytest.mark.parametrize("last", [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3)])
def test_a_run_stopped_at_any_step_resumes_bit_identical(
    unbroken: list[EpochResult], last: tuple[int, int]
) -> None:
    resumed = run(state=stop_after(last))
    assert len(resumed) == SMALL.epochs + 1 - last[0]
    assert without_timings(resumed[-1].history) == without_timings(unbroken[-1].history)
    assert state_of(resumed[-1]) == state_of(unbroken[-1])


def test_the_state_during_a_step_is_that_before_it() -> None:
    """Read by another thread during the forward pass, which has changed the statistics by then."""
    trainer = Trainer(SMALL, TRAIN, VAL)
    states: list[bytes] = []

    def read_state(*arguments: Any) -> None:
        thread = threading.Thread(target=lambda: states.append(trainer.state()))
        thread.start()
        thread.join()

    def stop(epoch: int, step: int, steps: int, loss: float) -> None:
        if step == 1:
            states.append(trainer.state())
            trainer.model.head.register_forward_hook(read_state)
        else:
            raise StoppedError

    with pytest.raises(StoppedError):
        list(trainer.epochs(stop))
    after_the_first, in_the_second = states
    assert in_the_second == after_the_first
    assert trainer.state() != after_the_first


def test_a_finished_run_is_resumed_without_a_step(unbroken: list[EpochResult]) -> None:
    assert run(state=unbroken[-1].last) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "batch_size"),
    [(3, 3), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in [(2, 3), (2, 5), (3, 5)])],
)
def test_several_processes_have_the_history_of_one(processes: int, batch_size: int) -> None:
    # Batches of 3, 2 and 2 films, where the last rank of three has often none, or of 4 and 3.
    config = dataclasses.replace(SMALL, batch_size=batch_size)
    ranks = run_ranks(history_of_rank, processes, config, None)
    assert_same_history(ranks, run(config)[-1].history)


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_stopped(unbroken: list[EpochResult]) -> None:
    ranks = run_ranks(history_of_rank, 2, SMALL, unbroken[0].last)
    assert_same_history(ranks, unbroken[-1].history)


def test_every_step_is_reported_with_its_loss() -> None:
    steps: list[tuple[int, int, int, float]] = []
    config = dataclasses.replace(SMALL, epochs=2)
    history = run(config, on_step=lambda *step: steps.append(step))[-1].history
    assert [step[:3] for step in steps] == [(e, s, 3) for e in (1, 2) for s in (1, 2, 3)]
    assert np.mean([loss for _, _, _, loss in steps[:3]]) == pytest.approx(history[0]["train_loss"])


def test_a_loss_that_is_not_finite_ends_training_with_a_remedy() -> None:
    with pytest.raises(BadDataError, match=r"loss is nan at epoch \d.*--learning-rate"):
        run(dataclasses.replace(SMALL, learning_rate=1e38))


@pytest.mark.parametrize(("train", "val", "name"), [(0, 5, "training"), (5, 0, "validation")])
def test_an_empty_split_is_bad_data(train: int, val: int, name: str) -> None:
    with pytest.raises(BadDataError, match=f"no {name} films"):
        Trainer(SMALL, films(train, 0), films(val, 0))


def test_a_checkpoint_of_another_config_is_refused(unbroken: list[EpochResult]) -> None:
    with pytest.raises(BadDataError, match=r"'seed': 0.*'seed': 1.*--force"):
        run(dataclasses.replace(SMALL, seed=1), state=unbroken[0].last)


@pytest.mark.parametrize(("size", "depth"), [(48, 5), (32, 5), (40, 4)])
def test_a_size_that_the_depth_does_not_divide_is_refused(size: int, depth: int) -> None:
    with pytest.raises(
        ConfigError, match=f"--size {size} does not fit .* divides it by {2**depth}"
    ):
        dataclasses.replace(SMALL, size=size, depth=depth)


def test_only_weights_of_convolutions_decay() -> None:
    model = build_model(SMALL)
    decayed, others = build_optimizer(model, SMALL).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == SMALL.weight_decay and others["weight_decay"] == 0
    assert all(names[id(p)].endswith("weight") and p.ndim == 4 for p in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_the_seed_gives_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    one, other = build_model(SMALL), build_model(SMALL)
    assert torch.equal(one.head.weight, other.head.weight)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_an_error_of_on_step_ends_training() -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_step=stop)
