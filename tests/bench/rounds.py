"""Ratios within one run: the sides alternate, so that a noisy machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

# value (the median), min, max, unit, and against: the side that a ratio is relative to.
Figure: TypeAlias = dict[str, Any]


def alternate(
    rounds: int, sides: Mapping[str, Callable[[], object]], *, warm_up: bool = True
) -> dict[str, list[float]]:
    """The seconds of each side in each of `rounds` rounds; a warm-up round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warm_up, rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(numerators: Sequence[float], denominators: Sequence[float], against: str) -> Figure:
    """The figure of the ratios, one for each round."""
    ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
    return figure(ratios, "x", against)


def figure(values: Sequence[float], unit: str, against: str) -> Figure:
    """The median, the smallest and the largest of the rounds' values."""
    return {
        "value": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "unit": unit,
        "against": against,
    }
