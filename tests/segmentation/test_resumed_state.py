"""A checkpoint that is not one of the training is refused, with the field that is wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from jobs.errors import BadDataError
from jobs.segmentation import checkpoint
from tests.support.edits import changed
from tests.support.fits import run


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    """The contents of last.pt after the first of three epochs of three steps."""
    return checkpoint.from_bytes(run()[0].last)


def resume(contents: dict[str, Any]) -> None:
    run(state=checkpoint.to_bytes(contents))


@pytest.mark.parametrize(
    ("path", "new", "words"),
    [
        (("history",), [], "has a schedule after 3 steps, and 0 steps were taken"),
        (("history", 0, "epoch"), 2, "history has the epochs [2], not 1 to 1"),
        (("history", 0, "val_dice"), "0.5", 'history: [0].val_dice is "0.5", not a number'),
        (("steps",), {}, "steps is {}, not a list"),
        (("seconds",), -1.0, "seconds is -1.0, not a number from 0"),
        (("best",), None, "best is not model, config and epoch"),
        (("best", "epoch"), 2, "best.epoch is 2, not a number from 1 to 1"),
        (("best", "config", "seed"), 1, "best.config.seed is '1', not 0"),
        (("scheduler", "last_epoch"), 4, "has a schedule after 4 steps, and 3 steps were taken"),
        (("scheduler", "total_steps"), 10, "scheduler.total_steps is '10', not 9"),
        (("optimizer", "state"), {}, "optimizer.state is empty after the first step"),
        (("optimizer", "param_groups", 0, "params"), [1], "params is not a list of"),
        (("optimizer", "param_groups", 0, "lr"), "x", 'lr is "x", not a number'),
        (("optimizer", "state", 0, "exp_avg"), torch.zeros(3), "exp_avg is torch.float32 (3,)"),
        (("scaler",), {"scale": 0.5}, "scaler has the fields ['scale']"),
        (("model",), [], "model does not have the fields of this training"),
        (("model", "head.bias"), torch.zeros(2), "head.bias is torch.float32 (2,)"),
        (("model", "head.bias"), torch.zeros(1).int(), "head.bias is torch.int32 (1,)"),
        (("model", "head.bias"), torch.tensor([torch.nan]), "head.bias has numbers that are not"),
    ],
)
def test_a_field_that_is_not_of_this_training_is_named(
    saved: dict[str, Any], path: tuple[Any, ...], new: Any, words: str
) -> None:
    with pytest.raises(BadDataError, match=re.escape(words)) as caught:
        resume(changed(saved, path, new))
    assert str(caught.value).startswith("last.pt") and "--force" in str(caught.value)


@pytest.mark.parametrize("name", ["model", "optimizer", "history", "seconds"])
def test_a_missing_field_is_refused(saved: dict[str, Any], name: str) -> None:
    with pytest.raises(BadDataError, match=r"^last\.pt has the fields"):
        resume(changed(saved, (name,), None, remove=True))


def test_more_epochs_than_the_training_has_are_refused(saved: dict[str, Any]) -> None:
    rows = [saved["history"][0] | {"epoch": epoch} for epoch in range(1, 9)]
    with pytest.raises(BadDataError, match="has 8 epochs and 0 steps more, the training 3 epochs"):
        resume(saved | {"history": rows})
