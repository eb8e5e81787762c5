"""The figures of an evaluation, from its rows: one row a film, with its scores and its split.

A row holds dice and iou (0..1), hd95 (percent of the film's diagonal), `tested` where the film
belongs to the test figures, and, where predict gave them, quality (0..1) and review.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobs.storage.manifest import Row

METRICS = {"dice": 5, "iou": 5, "hd95": 95}  # each with the percentile of its bad end
RESAMPLES, LEVEL, SEED = 2000, 95, 0
FEWEST_RANKED = 3
WORST_SHARE = 0.1
DIGITS = 6

Interval = tuple[float | None, float | None]


def summarise(rows: Sequence[Row], trained_on: Sequence[str]) -> dict[str, Any]:
    """Figures of the splits, of the tested films by source and label, and of the quality score.

    Args:
        rows: of the films that have a truth.
        trained_on: the sources whose films the network learned from.
    """
    tested = [row for row in rows if row["tested"]]
    figures: dict[str, Any] = {"test": _figures(tested)}
    for split in ("val", "train"):
        figures[split] = _figures([row for row in rows if row["split"] == split])
    for name in ("source", "label"):
        groups = sorted({row[name] for row in tested})
        figures[f"by_{name}"] = {
            group: _figures([row for row in tested if row[name] == group]) for group in groups
        }
    figures["cross_source"] = [
        {"trained_on": list(trained_on), "tested_on": source, **group}
        for source, group in figures["by_source"].items()
    ]
    figures["review"] = review(tested)
    return figures


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts and the spread of each metric; None for a metric without films: JSON has no NaN."""
    about = {"films": len(rows), "patients": len({row["patient"] for row in rows})}
    if not rows:
        return about | dict.fromkeys(METRICS)
    intervals = bootstrap(rows, list(METRICS))
    return about | {name: _spread(rows, name, intervals[name]) for name in METRICS}


def _spread(rows: Sequence[Row], name: str, interval: Interval) -> dict[str, float | None]:
    values = np.array([row[name] for row in rows])
    percent = METRICS[name]
    spread: Mapping[str, float | None] = {
        "mean": values.mean(),
        "low": interval[0],
        "high": interval[1],
        f"p{percent:02d}": np.percentile(values, percent),
        "median": np.median(values),
    }
    return {key: None if v is None else round(float(v), DIGITS) for key, v in spread.items()}


def bootstrap(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Interval]:
    """The 95 % interval of each mean over films: percentiles of the means of RESAMPLES samples.

    Patients are drawn, with replacement, and all films of each come along, since the films of one
    patient are no independent evidence (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapters 8 and 13). The same rows give the same interval; one patient gives none.
    """
    patients, place = np.unique([row["patient"] for row in rows], return_inverse=True)
    if len(patients) < 2:
        return dict.fromkeys(names, (None, None))
    values = np.array([[1.0, *(row[name] for name in names)] for row in rows])
    totals = np.zeros((len(patients), values.shape[1]))  # of each patient: films, then sums
    np.add.at(totals, place, values)
    random = np.random.default_rng(SEED)
    drawn = np.array(
        [
            totals[random.integers(len(totals), size=len(totals))].sum(axis=0)
            for _ in range(RESAMPLES)
        ]
    )
    ends = (50 - LEVEL / 2, 50 + LEVEL / 2)
    low, high = np.percentile(drawn[:, 1:] / drawn[:, :1], ends, axis=0)
    return dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def review(rows: Sequence[Row]) -> dict[str, Any]:
    """How well the quality score, which saw no truth, tells good masks from bad ones.

    Over the films that have a score: their number, how many are flagged for review, the rank
    correlation of score and Dice, and how many of the worst tenth by Dice are flagged.
    """
    scored = sorted((row for row in rows if "quality" in row), key=lambda row: row["dice"])
    worst = scored[: math.ceil(WORST_SHARE * len(scored))]
    correlation = rank_correlation(
        [row["quality"] for row in scored], [row["dice"] for row in scored]
    )
    return {
        "films": len(scored),
        "flagged": sum(row["review"] for row in scored),
        "rank_correlation": None if correlation is None else round(correlation, DIGITS),
        "worst": len(worst),
        "worst_flagged": sum(row["review"] for row in worst),
    }


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float | None:
    """Spearman's rho, -1..1, equal values sharing their mean rank.

    None for fewer than FEWEST_RANKED values, or where either has but one value: no order to tell.
    """
    ranks = [_ranks(np.asarray(values)) for values in (one, other)]
    if len(ranks[0]) < FEWEST_RANKED or any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks
