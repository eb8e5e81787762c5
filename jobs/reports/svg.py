"""Losses and Dice by epoch, and calibration, as SVG: for the report in its own colors.

The first two also as a picture by itself, with colors of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 34, 412, 8, 216  # the plot's frame within the drawing
GAP, HEAD = 40, 34  # of the picture: between its two plots, and above them

Lines = Mapping[str, Sequence[float]]
History = Sequence[Mapping[str, Any]]

PICTURE_STYLE = """
svg { --paper: #fdfcf9; --soft: #67635c; --rule: #dcd7ce;
  --train: #1668a7; --val: #b8430b; --reference: #8b867d; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #141516; --soft: #a29d94; --rule: #35342f; --train: #6db3f2; --val: #ff9a5c; }
}
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; fill: var(--soft); }
text.x { text-anchor: middle; } text.y { text-anchor: end; }
rect { fill: var(--paper); } path { fill: none; stroke: var(--rule); }
path.best { stroke: var(--soft); stroke-dasharray: 1 3; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
polyline.train { stroke: var(--train); } polyline.val { stroke: var(--val); }
polyline.reference { stroke: var(--reference); stroke-width: 1.5; stroke-dasharray: 5 4; }
circle { stroke: var(--val); stroke-width: 2; fill: var(--val); }
circle.best { fill: var(--paper); }
tspan.train { fill: var(--train); } tspan.val { fill: var(--val); }
tspan.reference { fill: var(--reference); }
"""


def picture(history: History, epochs: int) -> bytes:
    """Both drawings side by side as one SVG file with its own colors, for light and for dark.

    The axis goes to `epochs`, so that the lines of a training that is under way grow along it.
    """
    best = max(range(len(history)), key=lambda index: history[index]["val_dice"])
    last, chosen = history[-1], history[best]
    plots = _plots(history, best, epochs)
    loss = (
        f'Dice loss: <tspan class="train">train {last["train_loss"]:.3f}</tspan>, '
        f'<tspan class="val">validation {last["val_loss"]:.3f}</tspan>, '
        f'<tspan class="reference">all lung {last["all_lung_loss"]:.3f}</tspan>'
    )
    dice = (
        f'Validation Dice: <tspan class="val">{last["val_dice"]:.3f}</tspan>, '
        f"best {chosen['val_dice']:.3f} in epoch {chosen['epoch']:.0f}"
    )
    width, height = 2 * WIDTH + GAP + 4, HEAD + HEIGHT
    drawn = "".join(
        f'<g transform="translate({x} 0)"><text x="{LEFT}" y="16">{title}</text>'
        f'<g transform="translate(0 {HEAD})">{plot}</g></g>'
        for x, title, plot in ((0, loss, plots["loss"]), (WIDTH + GAP, dice, plots["dice"]))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Losses and validation Dice by epoch">'
        f'<style>{PICTURE_STYLE}</style><rect width="{width}" height="{height}"/>{drawn}</svg>\n'
    ).encode()


def curves_svg(history: History, best: int) -> dict[str, Markup]:
    """Drawings of the losses ("loss") and of the validation Dice ("dice") by epoch.

    Lines bear the classes train, val and reference (the loss of a net that paints everything as
    lung). A hairline and a ring mark the epoch `best`, an index into the history; a dot the last.
    """
    titles = {"loss": "Losses by epoch", "dice": "Validation Dice by epoch"}
    plots = _plots(history, best, int(history[-1]["epoch"]))
    return {name: _drawing(titles[name], plot) for name, plot in plots.items()}


def calibration_svg(curve: Sequence[Mapping[str, float]]) -> Markup:
    """The share that is lung by the probability that was predicted, a point a bin.

    Args:
        curve: points with "predicted", "lung" and "share", each 0..1, from the lowest.

    A bar stands for the share of all pixels that a point speaks of; on the dashed diagonal a
    network says what is.
    """
    steps = [round(0.2 * step, 1) for step in range(6)]

    def x(share: float) -> float:
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def y(share: float) -> float:
        return round(BOTTOM - share * (BOTTOM - TOP), 1)

    places = [(x(point["predicted"]), y(point["lung"])) for point in curve]
    line = " ".join(f"{across},{up}" for across, up in places)
    parts = _frame(steps, steps, x, y, "probability of lung")
    parts += [
        f'<path class="share" d="M{across} {BOTTOM}V{y(point["share"])}"/>'
        for (across, _), point in zip(places, curve, strict=True)
    ]
    parts.append(f'<polyline class="reference" points="{x(0)},{y(0)} {x(1)},{y(1)}"/>')
    parts.append(f'<polyline class="val" points="{line}"/>')
    parts += [f'<circle cx="{across}" cy="{up}" r="3"/>' for across, up in places]
    title = "Share of the pixels that is lung by the probability predicted for them"
    return _drawing(title, "".join(parts))


def _drawing(title: str, plot: str) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{plot}</svg>'
    )


def _plots(history: History, best: int, last: int) -> dict[str, str]:
    """The elements of the two plots, with an axis from the first epoch to `last`."""
    losses = {
        "reference": [row["all_lung_loss"] for row in history],
        "train": [row["train_loss"] for row in history],
        "val": [row["val_loss"] for row in history],
    }
    dice = [row["val_dice"] for row in history]
    epochs = [int(row["epoch"]) for row in history]
    highest = max(max(line) for line in losses.values())
    return {
        "loss": _plot(epochs, losses, (0.0, highest), best, last),
        "dice": _plot(epochs, {"val": dice}, (min(dice), 1.0), best, last),
    }


def _plot(
    epochs: Sequence[int], lines: Lines, span: tuple[float, float], best: int, last: int
) -> str:
    rows, columns = ticks(*span, 5), ticks(epochs[0], last, 8, smallest=1)
    low, high = rows[0], rows[-1]

    def x(epoch: float) -> float:
        share = (epoch - epochs[0]) / max(1, last - epochs[0])
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def y(number: float) -> float:
        return round(BOTTOM - (number - low) / (high - low) * (BOTTOM - TOP), 1)

    columns = [column for column in columns if epochs[0] <= column <= last]
    parts = _frame(columns, rows, x, y, "epoch")
    parts.append(f'<path class="best" d="M{x(epochs[best])} {TOP}V{BOTTOM}"/>')
    for kind, line in lines.items():
        points = " ".join(f"{x(e)},{y(v)}" for e, v in zip(epochs, line, strict=True))
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
    parts += [
        f'<circle class="{mark}" cx="{x(epochs[at])}" cy="{y(lines["val"][at])}" r="4"/>'
        for mark, at in (("last", -1), ("best", best))
    ]
    return "".join(parts)


def _frame(
    columns: Sequence[float],
    rows: Sequence[float],
    x: Callable[[float], float],
    y: Callable[[float], float],
    title: str,
) -> list[str]:
    """The grid and the words of a plot, `title` below its horizontal axis."""
    parts = [f'<path class="grid" d="M{LEFT} {y(row)}H{RIGHT}"/>' for row in rows]
    parts += [f'<text class="y" x="{LEFT - 7}" y="{y(row) + 4:g}">{row:g}</text>' for row in rows]
    parts += [
        f'<text class="x" x="{x(column)}" y="{BOTTOM + 17}">{column:g}</text>' for column in columns
    ]
    parts.append(f'<text class="x" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 2}">{title}</text>')
    return parts


def ticks(low: float, high: float, count: int, smallest: float = 0.0) -> list[float]:
    """About `count` round numbers, 1, 2 or 5 × 10^n apart, that enclose low to high."""
    rough = max((high - low) / count, smallest, 1e-6)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
