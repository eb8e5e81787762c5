"""Losses and Dice by epoch as SVG for the report: drawn by the browser in the page's own colors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 34, 412, 8, 216  # the plot's frame within the drawing

Lines = Mapping[str, Sequence[float]]


def curves_svg(history: Sequence[Mapping[str, float]], best: int) -> dict[str, Markup]:
    """Drawings of the losses ("loss") and of the validation Dice ("dice") by epoch.

    Lines bear the classes train, val and reference (the loss of a net that paints everything as
    lung). A hairline and a ring mark the epoch `best`, an index into the history; a dot the last.
    """
    losses = {
        "reference": [row["all_lung_loss"] for row in history],
        "train": [row["train_loss"] for row in history],
        "val": [row["val_loss"] for row in history],
    }
    dice = [row["val_dice"] for row in history]
    epochs = [int(row["epoch"]) for row in history]
    highest = max(max(line) for line in losses.values())
    return {
        "loss": _drawing("Losses by epoch", epochs, losses, (0.0, highest), best),
        "dice": _drawing("Validation Dice by epoch", epochs, {"val": dice}, (min(dice), 1.0), best),
    }


def _drawing(
    title: str, epochs: Sequence[int], lines: Lines, span: tuple[float, float], best: int
) -> Markup:
    rows, columns = ticks(*span, 5), ticks(epochs[0], epochs[-1], 8, smallest=1)
    low, high = rows[0], rows[-1]

    def x(epoch: float) -> float:
        share = (epoch - epochs[0]) / max(1, epochs[-1] - epochs[0])
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def y(number: float) -> float:
        return round(BOTTOM - (number - low) / (high - low) * (BOTTOM - TOP), 1)

    parts = [f'<path class="grid" d="M{LEFT} {y(row)}H{RIGHT}"/>' for row in rows]
    parts += [f'<text class="y" x="{LEFT - 7}" y="{y(row) + 4:g}">{row:g}</text>' for row in rows]
    parts += [
        f'<text class="x" x="{x(column)}" y="{BOTTOM + 17}">{column:g}</text>'
        for column in columns
        if epochs[0] <= column <= epochs[-1]
    ]
    parts.append(f'<text class="x" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 2}">epoch</text>')
    parts.append(f'<path class="best" d="M{x(epochs[best])} {TOP}V{BOTTOM}"/>')
    for kind, line in lines.items():
        points = " ".join(f"{x(e)},{y(v)}" for e, v in zip(epochs, line, strict=True))
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
    parts += [
        f'<circle class="{mark}" cx="{x(epochs[at])}" cy="{y(lines["val"][at])}" r="4"/>'
        for mark, at in (("last", -1), ("best", best))
    ]
    drawn = "".join(parts)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{drawn}</svg>'
    )


def ticks(low: float, high: float, count: int, smallest: float = 0.0) -> list[float]:
    """About `count` round numbers, 1, 2 or 5 × 10^n apart, that enclose low to high."""
    rough = max((high - low) / count, smallest, 1e-6)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
