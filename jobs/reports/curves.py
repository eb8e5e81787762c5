"""The loss curves as a picture, for those who look at a bucket rather than at the report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def draw_curves(history: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of both losses, beside that of a net that calls everything lung, and of val_dice."""
    from matplotlib.figure import Figure

    epochs = [int(row["epoch"]) for row in history]
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    losses, dice = figure.subplots(1, 2)
    for name, color in (("train_loss", "#2f6fde"), ("val_loss", "#e0712c")):
        losses.plot(epochs, [row[name] for row in history], color=color, label=name, marker=".")
    reference = history[-1]["all_lung_loss"]
    losses.axhline(reference, color="grey", linestyle="--", label="all lung")
    losses.set(xlabel="epoch", ylabel="Dice loss", ylim=(0, None), title="Loss")
    losses.legend()
    values = [row["val_dice"] for row in history]
    best = max(range(len(values)), key=values.__getitem__)
    dice.plot(epochs, values, color="#1b8a5a", marker=".")
    dice.annotate(f"{values[best]:.4f}", (epochs[best], values[best]), ha="center", va="bottom")
    dice.set(xlabel="epoch", ylabel="mean Dice at 0.5", ylim=(None, 1), title="Validation Dice")
    for axes in (losses, dice):
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
