"""Ratios within one run: the sides take turns, so that a noisy machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Figure: TypeAlias = dict[str, Any]
"""value (the median), min, max, unit, and against: what it is a ratio to."""


def take_turns(
    rounds: int, sides: Mapping[str, Callable[[], object]], *, warm_up: bool = True
) -> dict[str, list[float]]:
    """The seconds of each side in each of `rounds` rounds; a first round may go uncounted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warm_up, rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(numerators: Sequence[float], denominators: Sequence[float], against: str) -> Figure:
    """How many times each denominator its round's numerator is."""
    return figure([a / b for a, b in zip(numerators, denominators, strict=True)], "x", against)


def figure(values: Sequence[float], unit: str, against: str) -> Figure:
    """The median of rounds with the smallest and the largest."""
    return {
        "value": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "unit": unit,
        "against": against,
    }
