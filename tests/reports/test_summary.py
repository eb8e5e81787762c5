"""summary: means, intervals over patients and rank correlation, against SciPy and by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from jobs.films.rows import ScoredRow
from jobs.reports.summary import bootstrap, rank_correlation, review, summarise


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def rows_of(dice: Any, **columns: Any) -> list[ScoredRow]:
    """One film a patient with these Dice, all tested; `columns` hold a value a film."""
    shared = {"label": "normal", "source": "montgomery", "split": "test", "tested": True}
    rows: list[dict[str, Any]] = [
        {**shared, "patient": f"p{number}", "dice": value, "iou": value / 2, "hd95": 100 * value}
        for number, value in enumerate(map(float, dice))
    ]
    for name, values in columns.items():
        rows = [row | {name: value} for row, value in zip(rows, values, strict=True)]
    return cast("list[ScoredRow]", rows)


def of_patient(row: ScoredRow, patient: str) -> ScoredRow:
    return {**row, "patient": patient}


def test_the_interval_is_scipys_percentile_bootstrap(random: np.random.Generator) -> None:
    dice = random.beta(20, 2, 40)
    expected = stats.bootstrap(
        (dice,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    # The ends of 2,000 and of 9,999 resamples differ by some hundredths of the interval.
    low, high = bootstrap(rows_of(dice), ["dice"])["dice"]
    assert low == pytest.approx(expected.low, abs=0.06 * width)
    assert high == pytest.approx(expected.high, abs=0.06 * width)


def test_the_interval_of_a_large_normal_sample_is_the_textbooks(
    random: np.random.Generator,
) -> None:
    dice = random.normal(0.9, 0.02, 2000)
    error = 1.96 * dice.std() / np.sqrt(len(dice))
    low, high = bootstrap(rows_of(dice), ["dice"])["dice"]
    assert low == pytest.approx(dice.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(dice.mean() + error, abs=0.1 * error)


def test_the_interval_covers_the_true_mean_about_nineteen_times_in_twenty(
    random: np.random.Generator,
) -> None:
    covered = 0
    for _ in range(40):
        low, high = bootstrap(rows_of(random.normal(0.9, 0.02, 40)), ["dice"])["dice"]
        assert low is not None and high is not None
        covered += low <= 0.9 <= high
    # Of 40 tries at 0.94 each, fewer than 33 come once in four hundred times.
    assert covered >= 33


def test_a_patient_is_drawn_with_all_films(random: np.random.Generator) -> None:
    dice = random.beta(20, 2, 30)
    rows = rows_of(dice)
    # The same film three times adds no evidence.
    thrice = [row for row in rows for _ in range(3)]
    assert bootstrap(thrice, ["dice"])["dice"] == pytest.approx(
        bootstrap(rows, ["dice"])["dice"], abs=1e-12
    )


def test_patients_with_many_films_weigh_as_many(random: np.random.Generator) -> None:
    counts = random.integers(1, 9, 25)
    rows = [
        of_patient(row, f"p{patient}")
        for patient, count in enumerate(counts)
        for row in rows_of(random.normal(0.8 + 0.02 * count, 0.01, count))
    ]
    films = defaultdict(list)
    for row in rows:
        films[row["patient"]].append(row["dice"])
    dice_of_patients = list(films.values())
    means = [
        np.mean(np.concatenate([dice_of_patients[index] for index in random.integers(25, size=25)]))
        for _ in range(4000)
    ]
    expected = np.percentile(means, [2.5, 97.5])
    assert bootstrap(rows, ["dice"])["dice"] == pytest.approx(expected, abs=0.002)


def test_a_metric_has_the_same_interval_alone_and_with_others(
    random: np.random.Generator,
) -> None:
    rows = rows_of(random.beta(20, 2, 12))
    together = bootstrap(rows, ["dice", "iou", "hd95"])
    assert together == bootstrap(rows, ["dice", "iou", "hd95"])
    assert together["hd95"] == bootstrap(rows, ["hd95"])["hd95"]


def test_one_patient_has_no_interval_and_two_have_one() -> None:
    one = [of_patient(row, "p") for row in rows_of([0.9, 0.8])]
    assert bootstrap(one, ["dice"])["dice"] == (None, None)
    assert summarise(one, ["montgomery"])["test"]["dice"] == {
        "mean": 0.85,
        "low": None,
        "high": None,
        "p05": 0.805,
        "median": 0.85,
    }
    assert bootstrap(rows_of([0.9, 0.8]), ["dice"])["dice"] == pytest.approx((0.8, 0.9))


def test_each_metric_has_the_percentile_of_its_bad_end(random: np.random.Generator) -> None:
    values = random.random(50)
    test = summarise(rows_of(values), ["montgomery"])["test"]
    assert test["films"] == test["patients"] == 50
    for name, scale, key, percent in (
        ("dice", 1, "p05", 5),
        ("iou", 0.5, "p05", 5),
        ("hd95", 100, "p95", 95),
    ):
        assert test[name]["mean"] == pytest.approx(scale * values.mean(), abs=1e-6)
        assert test[name]["median"] == pytest.approx(scale * np.median(values), abs=1e-6)
        assert test[name][key] == pytest.approx(np.percentile(scale * values, percent), abs=1e-6)
        assert test[name]["low"] < test[name]["mean"] < test[name]["high"]


def test_no_films_have_no_figures_and_no_nan() -> None:
    figures = summarise([], ["montgomery"])
    nothing = {"films": 0, "patients": 0, "dice": None, "iou": None, "hd95": None}
    assert figures["test"] == figures["val"] == figures["train"] == nothing
    assert figures["by_source"] == figures["by_label"] == {}
    assert figures["cross_source"] == []
    json.dumps(figures, allow_nan=False)


def test_only_tested_films_are_in_the_test_figures() -> None:
    rows = rows_of(
        [0.9, 0.8, 0.7, 0.6],
        source=["montgomery", "shenzhen", "shenzhen", "montgomery"],
        split=["train", "test", "test", "test"],
        tested=[False, True, True, False],
    )
    figures = summarise(rows, ["montgomery"])
    assert figures["test"]["dice"]["mean"] == 0.75
    assert figures["train"]["dice"]["mean"] == 0.9
    (cell,) = figures["cross_source"]
    assert (cell["trained_on"], cell["tested_on"]) == (["montgomery"], "shenzhen")
    assert cell["dice"] == figures["by_source"]["shenzhen"]["dice"] == figures["test"]["dice"]


@pytest.mark.parametrize("digits", [None, 1])
def test_the_rank_correlation_is_scipys_with_and_without_ties(
    digits: int | None, random: np.random.Generator
) -> None:
    one = random.random(60)
    other = one + random.normal(0, 0.4, 60)
    if digits is not None:
        one, other = one.round(digits), other.round(digits)
        assert len(set(one)) < 20
    expected = stats.spearmanr(one, other).statistic
    assert rank_correlation(one, other) == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(one, -other) == pytest.approx(-expected, abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other"),
    [([], []), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])],
)
def test_few_or_equal_values_have_no_rank_correlation(one: Any, other: Any) -> None:
    assert rank_correlation(one, other) is None


def test_the_review_figures_are_those_counted_by_hand() -> None:
    dice = [0.95, 0.2, 0.9, 0.4, 0.97, 0.96, 0.94, 0.93, 0.92, 0.91, 0.89]
    quality = [0.9, 0.1, 0.8, 0.7, 1.0, 0.95, 0.6, 0.75, 0.74, 0.73, 0.2]
    flags = [value < 0.5 for value in quality]
    rows = rows_of(dice, quality=quality, review=flags)
    assert review(rows) == {
        "films": 11,
        "flagged": 2,
        "rank_correlation": pytest.approx(stats.spearmanr(dice, quality).statistic, abs=1e-6),
        "worst": 2,  # a tenth of 11, rounded up: those of 0.2 and 0.4
        "worst_flagged": 1,
    }


def test_predictions_without_a_quality_score_have_no_review_figures() -> None:
    none = {"films": 0, "flagged": 0, "rank_correlation": None, "worst": 0, "worst_flagged": 0}
    assert review(rows_of([0.9, 0.8, 0.7])) == none
    some = rows_of([0.9, 0.8], quality=[0.5, 0.6], review=[True, False])
    assert review([*some, *rows_of([0.0])])["films"] == 2
