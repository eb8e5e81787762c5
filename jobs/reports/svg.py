"""Loss, Dice and calibration plots as SVG: inline in the report, and curves.svg as a file.

The classes of the elements are styled by RULES, in the colors LIGHT and DARK.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

# Pixels at zoom 1: one plot, the frame of its axes, and in curves.svg the gap between the two plots
# and the height of their titles.
WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 34, 412, 8, 216
GAP, TITLE_HEIGHT = 40, 34

Lines = Mapping[str, Sequence[float]]
History = Sequence[Mapping[str, Any]]

LIGHT = Markup(
    "--paper: #fdfcf9; --soft: #67635c; --rule: #dcd7ce; "
    "--train: #1668a7; --val: #b8430b; --reference: #8b867d;"
)
DARK = Markup(
    "--paper: #141516; --soft: #a29d94; --rule: #35342f; "
    "--train: #6db3f2; --val: #ff9a5c; --reference: #8b867d;"
)
# For curves.svg and the report alike; FILE_RULES for curves.svg alone.
RULES = Markup("""\
svg text { font-size: 12px; fill: var(--soft); }
svg text.x { text-anchor: middle; }
svg text.y { text-anchor: end; }
svg path { fill: none; stroke: var(--rule); }
svg path.best { stroke: var(--soft); stroke-dasharray: 1 3; }
svg path.share { stroke-width: 10; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg polyline.train { stroke: var(--train); }
svg polyline.val { stroke: var(--val); }
svg polyline.reference { stroke: var(--reference); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg circle { stroke: var(--val); stroke-width: 2; fill: var(--val); }
svg circle.best { fill: var(--paper); }
""")
FILE_RULES = """\
rect { fill: var(--paper); }
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
tspan.train { fill: var(--train); }
tspan.val { fill: var(--val); }
tspan.reference { fill: var(--reference); }
"""


def picture(history: History, epochs: int) -> bytes:
    """curves.svg: both plots of the curves side by side, light or dark as the viewer prefers.

    Args:
        history: a row an epoch, as in history.json.
        epochs: where the epoch axis ends, so that the lines of a running training grow along it.
    """
    dark = f"@media (prefers-color-scheme: dark) {{ svg {{ {DARK} }} }}"
    return _picture(history, epochs, f"svg {{ {LIGHT} }}\n{dark}\n{RULES}{FILE_RULES}").encode()


def light_picture(history: History) -> str:
    """`picture` of a finished training as text, in the light colors alone."""
    # resvg knows neither CSS variables nor media queries.
    colors = dict(re.findall(r"--(\w+): (#\w+)", LIGHT))
    style = re.sub(r"var\(--(\w+)\)", lambda use: colors[use[1]], f"{RULES}{FILE_RULES}")
    return _picture(history, len(history), style)


def curves_svg(history: History, best: int) -> dict[str, Markup]:
    """Plots of the losses ("loss") and of the validation Dice ("dice") by epoch.

    Lines have the classes train, val and reference (the loss of a net that calls every pixel lung).
    A dotted line and a ring mark the epoch `best`, an index into the history; a dot the last epoch.
    """
    titles = {"loss": "Losses by epoch", "dice": "Validation Dice by epoch"}
    plots = _plots(history, best, int(history[-1]["epoch"]))
    return {name: _svg(titles[name], plot) for name, plot in plots.items()}


def calibration_svg(curve: Sequence[Mapping[str, float]]) -> Markup:
    """The share of pixels that are lung against the predicted probability, a point a bin.

    Args:
        curve: points with "predicted", "lung" and "share", each 0..1, from the lowest bin.

    The height of a bar is the bin's share of all pixels. The points of a perfectly calibrated
    network lie on the dashed diagonal.
    """
    steps = [round(0.2 * step, 1) for step in range(6)]

    def x_of(share: float) -> float:
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def y_of(share: float) -> float:
        return round(BOTTOM - share * (BOTTOM - TOP), 1)

    points = [(x_of(point["predicted"]), y_of(point["lung"])) for point in curve]
    line = " ".join(f"{x},{y}" for x, y in points)
    elements = _axes(steps, steps, x_of, y_of, "probability of lung")
    elements += [
        f'<path class="share" d="M{x} {BOTTOM}V{y_of(point["share"])}"/>'
        for (x, _), point in zip(points, curve, strict=True)
    ]
    diagonal = f"{x_of(0)},{y_of(0)} {x_of(1)},{y_of(1)}"
    elements.append(f'<polyline class="reference" points="{diagonal}"/>')
    elements.append(f'<polyline class="val" points="{line}"/>')
    elements += [f'<circle cx="{x}" cy="{y}" r="3"/>' for x, y in points]
    title = "Share of the pixels that is lung by the probability predicted for them"
    return _svg(title, "".join(elements))


def _svg(title: str, plot: str) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{plot}</svg>'
    )


def _picture(history: History, epochs: int, style: str) -> str:
    best = max(range(len(history)), key=lambda index: history[index]["val_dice"])
    plots = _plots(history, best, epochs)
    titles = _titles(history[-1], history[best])
    width, height = 2 * WIDTH + GAP + 4, TITLE_HEIGHT + HEIGHT
    groups = "".join(
        f'<g transform="translate({left} 0)"><text x="{LEFT}" y="16">{titles[name]}</text>'
        f'<g transform="translate(0 {TITLE_HEIGHT})">{plots[name]}</g></g>'
        for name, left in (("loss", 0), ("dice", WIDTH + GAP))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Losses and validation Dice by epoch">'
        f'<style>{style}</style><rect width="{width}" height="{height}"/>{groups}</svg>\n'
    )


def _titles(last: Mapping[str, float], best: Mapping[str, float]) -> dict[str, str]:
    """The plots' titles with the last epoch's figures, which serve as the legend too."""
    return {
        "loss": (
            f'Dice loss: <tspan class="train">train {last["train_loss"]:.3f}</tspan>, '
            f'<tspan class="val">validation {last["val_loss"]:.3f}</tspan>, '
            f'<tspan class="reference">all lung {last["all_lung_loss"]:.3f}</tspan>'
        ),
        "dice": (
            f'Validation Dice: <tspan class="val">{last["val_dice"]:.3f}</tspan>, '
            f"best {best['val_dice']:.3f} in epoch {best['epoch']:.0f}"
        ),
    }


def _plots(history: History, best: int, last_epoch: int) -> dict[str, str]:
    """The elements of the two plots, their axes from the first epoch to `last_epoch`."""
    losses = {
        "reference": [row["all_lung_loss"] for row in history],
        "train": [row["train_loss"] for row in history],
        "val": [row["val_loss"] for row in history],
    }
    dice = [row["val_dice"] for row in history]
    epochs = [int(row["epoch"]) for row in history]
    highest = max(max(line) for line in losses.values())
    return {
        "loss": _plot(epochs, losses, (0.0, highest), best, last_epoch),
        "dice": _plot(epochs, {"val": dice}, (min(dice), 1.0), best, last_epoch),
    }


def _plot(
    epochs: Sequence[int], lines: Lines, span: tuple[float, float], best: int, last_epoch: int
) -> str:
    first_epoch = epochs[0]
    rows = ticks(*span, 5)
    columns = [
        column
        for column in ticks(first_epoch, last_epoch, 8, smallest=1)
        if first_epoch <= column <= last_epoch
    ]
    low, high = rows[0], rows[-1]

    def x_of(epoch: float) -> float:
        share = (epoch - first_epoch) / max(1, last_epoch - first_epoch)
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def y_of(number: float) -> float:
        return round(BOTTOM - (number - low) / (high - low) * (BOTTOM - TOP), 1)

    elements = _axes(columns, rows, x_of, y_of, "epoch")
    elements.append(f'<path class="best" d="M{x_of(epochs[best])} {TOP}V{BOTTOM}"/>')
    for name, line in lines.items():
        points = " ".join(f"{x_of(e)},{y_of(v)}" for e, v in zip(epochs, line, strict=True))
        elements.append(f'<polyline class="{name}" points="{points}"/>')
    for mark, index in (("last", -1), ("best", best)):
        x, y = x_of(epochs[index]), y_of(lines["val"][index])
        elements.append(f'<circle class="{mark}" cx="{x}" cy="{y}" r="4"/>')
    return "".join(elements)


def _axes(
    columns: Sequence[float],
    rows: Sequence[float],
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    title: str,
) -> list[str]:
    """Grid lines at `rows`, the numbers of both axes, and `title` below the horizontal one."""
    grid = [f'<path class="grid" d="M{LEFT} {y_of(row)}H{RIGHT}"/>' for row in rows]
    vertical = [
        f'<text class="y" x="{LEFT - 7}" y="{y_of(row) + 4:g}">{row:g}</text>' for row in rows
    ]
    horizontal = [
        f'<text class="x" x="{x_of(column)}" y="{BOTTOM + 17}">{column:g}</text>'
        for column in columns
    ]
    middle = (LEFT + RIGHT) / 2
    name = f'<text class="x" x="{middle}" y="{HEIGHT - 2}">{title}</text>'
    return [*grid, *vertical, *horizontal, name]


def ticks(low: float, high: float, count: int, smallest: float = 0.0) -> list[float]:
    """About `count` round numbers, 1, 2 or 5 × 10^n apart, that enclose low to high."""
    # The tolerances let an end that is a round number but for its last bits be a tick.
    rough = max((high - low) / count, smallest, 1e-6)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
