"""Checks that a `last` checkpoint is one of the training that is to resume from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from jobs import typed_json
from jobs.errors import BadDataError
from jobs.segmentation.history import Positive, StepRow, check_epochs
from jobs.typed_json import Count, Range

NAME = "last.pt"
REMEDY = "it was edited or damaged, train with --force"
# What a step changes of the optimizer's groups and of the schedule.
CHANGING = {"lr", "betas", "last_epoch", "_step_count", "_last_lr", "_is_initial"}
CHANGING_FORMS: dict[type, Any] = {bool: bool, int: Count, float: Positive}
KEYS = {
    "model",
    "config",
    "optimizer",
    "scheduler",
    "scaler",
    "best",
    "history",
    "steps",
    "seconds",
}


def check_state(
    saved: Mapping[str, Any], fresh: Mapping[str, Any], epochs: int, steps: int
) -> None:
    """Raise BadDataError, naming the field, where `saved` is no state of this training.

    Args:
        saved: the contents of the checkpoint.
        fresh: the contents of one that this training would write before its first step, without
            the fields that only steps fill.
        epochs: of the whole training. steps: of an epoch.
    """
    if saved.keys() != KEYS:
        raise _wrong(f"has the fields {sorted(map(str, saved))[:20]}, not {sorted(KEYS)}")
    history = check_epochs(saved["history"], f"{NAME}: history")
    typed_json.check(saved["steps"], list[StepRow], f"{NAME}: steps", remedy=REMEDY)
    typed_json.check(saved["seconds"], Positive, f"{NAME}: seconds", remedy=REMEDY)
    if len(history) > epochs or len(saved["steps"]) > steps:
        raise _wrong(
            f"has {len(history)} epochs and {len(saved['steps'])} steps more, the training "
            f"{epochs} epochs of {steps} steps"
        )
    for name in ("model", "scheduler"):
        _check_like(saved[name], fresh[name], name)
    done = len(history) * steps + len(saved["steps"])
    if (counted := saved["scheduler"]["last_epoch"]) != done:
        raise _wrong(f"has a schedule after {counted} steps, and {done} steps were taken")
    _check_scaler(saved["scaler"])
    # A scaled loss may overflow in every step, which is then not taken.
    needs_state = bool(done and not saved["scaler"])
    _check_optimizer(saved["optimizer"], fresh["optimizer"], needs_state=needs_state)
    _check_best(saved["best"], fresh, len(history))


def _check_best(best: Any, fresh: Mapping[str, Any], epochs: int) -> None:
    """The model of an epoch of the history; None before the first epoch ends."""
    if not epochs:
        if best is not None:
            raise _wrong("has a best epoch and no history")
        return
    if not isinstance(best, dict) or best.keys() != {"model", "config", "epoch"}:
        raise _wrong("best is not model, config and epoch")
    typed_json.check(
        best["epoch"], Annotated[int, Range(1, epochs)], f"{NAME}: best.epoch", remedy=REMEDY
    )
    _check_like(best["config"], fresh["config"], "best.config")
    _check_like(best["model"], fresh["model"], "best.model")


def _check_scaler(scaler: Any) -> None:
    """The numbers of a GradScaler; none where the device did not compute in float16."""
    typed_json.check(scaler, dict[str, Positive], f"{NAME}: scaler", remedy=REMEDY)
    if scaler and scaler.keys() != torch.amp.GradScaler("cpu").state_dict().keys():
        raise _wrong(f"scaler has the fields {sorted(scaler)}")


def _check_optimizer(saved: Any, fresh: Mapping[str, Any], *, needs_state: bool) -> None:
    """AdamW's groups like the fresh ones and, from the first step on, a state a weight."""
    if not isinstance(saved, dict) or saved.keys() != {"state", "param_groups"}:
        raise _wrong("optimizer is not state and param_groups")
    _check_like(saved["param_groups"], fresh["param_groups"], "optimizer.param_groups")
    state = saved["state"]
    shapes: Mapping[int, Tensor] = fresh["state"]
    if not isinstance(state, dict) or state.keys() not in (set(), shapes.keys()):
        raise _wrong("optimizer.state is not of the training's weights")
    if needs_state and not state:
        raise _wrong("optimizer.state is empty after the first step")
    for index, moments in state.items():
        weight = shapes[index]
        like = {"step": torch.zeros(()), "exp_avg": weight, "exp_avg_sq": weight}
        _check_like(moments, like, f"optimizer.state.{index}")


def _check_like(saved: Any, fresh: Any, field: str, *, changes: bool = False) -> None:
    """Raise BadDataError unless both have the same keys, values, and shapes of tensors.

    Of the fields that CHANGING names, and of tensors, the values may differ.
    """
    if isinstance(fresh, Tensor):
        _check_tensor(saved, fresh, field)
    elif isinstance(fresh, dict):
        if not isinstance(saved, dict) or saved.keys() != fresh.keys():
            raise _wrong(f"{field} does not have the fields of this training")
        for key, item in fresh.items():
            _check_like(saved[key], item, f"{field}.{key}", changes=key in CHANGING)
    elif isinstance(fresh, list | tuple):
        if not isinstance(saved, list | tuple) or len(saved) != len(fresh):
            raise _wrong(f"{field} is not a list of {len(fresh)}")
        for number, item in enumerate(fresh):
            _check_like(saved[number], item, f"{field}[{number}]", changes=changes)
    elif changes:
        typed_json.check(saved, CHANGING_FORMS[type(fresh)], f"{NAME}: {field}", remedy=REMEDY)
    elif type(saved) is not type(fresh) or saved != fresh:
        raise _wrong(f"{field} is {str(saved)[:60]!r}, not {fresh!r}")


def _check_tensor(saved: Any, fresh: Tensor, field: str) -> None:
    if not isinstance(saved, Tensor):
        raise _wrong(f"{field} is a {type(saved).__name__}, not a tensor")
    if (saved.shape, saved.dtype) != (fresh.shape, fresh.dtype):
        raise _wrong(
            f"{field} is {saved.dtype} {tuple(saved.shape)}, not {fresh.dtype} {tuple(fresh.shape)}"
        )
    if not bool(saved.isfinite().all()):
        raise _wrong(f"{field} has numbers that are not finite")


def _wrong(problem: str) -> BadDataError:
    return BadDataError(f"{NAME} {problem}: {REMEDY}")
