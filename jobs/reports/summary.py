"""The figures of an evaluation: means, percentiles and intervals over films, by split and group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from jobs.films.rows import ScoredRow, Split

Metric = Literal["dice", "iou", "hd95"]
Group = Literal["source", "label"]
Interval = tuple[float | None, float | None]

# Each metric with the percentile of its bad end: a low Dice is bad, a low HD95 is good.
METRICS: dict[Metric, int] = {"dice": 5, "iou": 5, "hd95": 95}
SPLITS_SEEN: tuple[Split, ...] = ("val", "train")
GROUPS: tuple[Group, ...] = ("source", "label")
RESAMPLES = 2000
# Percent of the bootstrap's means that lie within the interval.
LEVEL = 95
SEED = 0
# The fewest films with a rank correlation.
FEWEST_RANKED = 3
# Share of the films, by lowest Dice, that the quality score should flag.
WORST_SHARE = 0.1
# Decimals of every figure in metrics.json.
DIGITS = 6


def summarise(rows: Sequence[ScoredRow], trained_on: Sequence[str]) -> dict[str, Any]:
    """The content of metrics.json but for the calibration.

    Args:
        rows: one for each film with a truth (status ok).
        trained_on: the sources of the network's training films.

    Returns the figures of the tested films ("test"), of the splits "val" and "train", of the tested
    films "by_source" and "by_label", "cross_source" (a row a tested source, beside `trained_on`)
    and those of the quality score ("review").
    """
    tested = [row for row in rows if row["tested"]]
    figures: dict[str, Any] = {"test": _figures(tested)}
    for split in SPLITS_SEEN:
        figures[split] = _figures([row for row in rows if row["split"] == split])
    for group in GROUPS:
        figures[f"by_{group}"] = {
            name: _figures([row for row in tested if row[group] == name])
            for name in sorted({row[group] for row in tested})
        }
    figures["cross_source"] = [
        {"trained_on": list(trained_on), "tested_on": source, **source_figures}
        for source, source_figures in figures["by_source"].items()
    ]
    figures["review"] = review(tested)
    return figures


def _figures(rows: Sequence[ScoredRow]) -> dict[str, Any]:
    """Films, patients and the spread of each metric; without films None, as JSON has no NaN."""
    counts = {"films": len(rows), "patients": len({row["patient"] for row in rows})}
    if not rows:
        return counts | dict.fromkeys(METRICS)
    intervals = bootstrap(rows, list(METRICS))
    return counts | {metric: _spread(rows, metric, intervals[metric]) for metric in METRICS}


def _spread(
    rows: Sequence[ScoredRow], metric: Metric, interval: Interval
) -> dict[str, float | None]:
    scores = np.array([row[metric] for row in rows])
    low, high = interval
    percent = METRICS[metric]
    spread: Mapping[str, float | None] = {
        "mean": scores.mean(),
        "low": low,
        "high": high,
        f"p{percent:02d}": np.percentile(scores, percent),
        "median": np.median(scores),
    }
    return {name: None if v is None else round(float(v), DIGITS) for name, v in spread.items()}


def bootstrap(rows: Sequence[ScoredRow], metrics: Sequence[Metric]) -> dict[Metric, Interval]:
    """The 95 % interval of each metric's mean over films: percentiles of RESAMPLES means.

    Patients are drawn with replacement, each with all its films, since the films of one patient
    are no independent evidence (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapters 8 and 13). Equal rows give equal intervals; a single patient gives (None, None).
    """
    patients, patient_of_film = np.unique([row["patient"] for row in rows], return_inverse=True)
    if len(patients) < 2:
        return dict.fromkeys(metrics, (None, None))
    scores = np.array([[1.0, *(row[metric] for metric in metrics)] for row in rows])
    sums = np.zeros((len(patients), scores.shape[1]))  # of each patient: films, then each metric
    np.add.at(sums, patient_of_film, scores)
    random = np.random.default_rng(SEED)
    # scipy.stats.bootstrap takes as many lines, and changed the sixth decimal of 1 in 720 ends.
    resampled = np.array(
        [sums[random.integers(len(sums), size=len(sums))].sum(axis=0) for _ in range(RESAMPLES)]
    )
    means = resampled[:, 1:] / resampled[:, :1]
    low, high = np.percentile(means, (50 - LEVEL / 2, 50 + LEVEL / 2), axis=0).tolist()
    return dict(zip(metrics, zip(low, high, strict=True), strict=True))


def review(rows: Sequence[ScoredRow]) -> dict[str, Any]:
    """How well the quality score, computed without a truth, separates good masks from bad ones.

    Over the films with a quality score. "worst" is the number of films in the worst tenth by Dice,
    "worst_flagged" how many of these are flagged for review.
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
    """Spearman's rho, -1..1, of two samples (n,); equal values share their mean rank.

    None for fewer than FEWEST_RANKED values, or where one sample has a single distinct value.
    """
    samples = [np.asarray(values) for values in (one, other)]
    if len(samples[0]) < FEWEST_RANKED or any(np.ptp(values) == 0 for values in samples):
        return None
    # SciPy's statistics take a second to import, and the calibration after this imports them too.
    from scipy import stats

    return float(stats.spearmanr(*samples).statistic)
