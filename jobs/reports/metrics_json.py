"""metrics.json as types, which are checked when publish reads it."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict, cast

from jobs import typed_json
from jobs.errors import BadDataError
from jobs.films.model_json import Origin
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.typed_json import Count, Fraction, Range

Percent = Annotated[float, Range(0, 100)]
Correlation = Annotated[float, Range(-1, 1)]


class Overlap(TypedDict):
    """The spread of a Dice or IoU; without an interval where the films are of one patient."""

    mean: Fraction
    low: Fraction | None
    high: Fraction | None
    p05: Fraction
    median: Fraction


class Distance(TypedDict):
    """The spread of an HD95, percent of the film's diagonal."""

    mean: Percent
    low: Percent | None
    high: Percent | None
    p95: Percent
    median: Percent


class Figures(TypedDict):
    """The figures of a group of films; None where the group has none."""

    films: Count
    patients: Count
    dice: Overlap | None
    iou: Overlap | None
    hd95: Distance | None


class CrossSource(Figures):
    trained_on: list[str]
    tested_on: str


class Review(TypedDict):
    films: Count
    flagged: Count
    rank_correlation: Correlation | None
    worst: Count
    worst_flagged: Count


class Bin(TypedDict):
    predicted: Fraction
    lung: Fraction
    share: Fraction


class Calibration(TypedDict):
    films: Count
    pixels: Count
    brier: Fraction
    expected_error: Fraction
    curve: list[Bin]


class Start(Origin):
    """The weights that the training started from, and how many of the films they have seen."""

    films: Count | None


class Metrics(TypedDict):
    """The content of metrics.json, as `summary.summarise` and `calibration.measure` return it.

    start: of a network that was trained from the weights of another one.
    """

    test: Figures
    val: Figures
    train: Figures
    by_source: dict[str, Figures]
    by_label: dict[str, Figures]
    cross_source: list[CrossSource]
    review: Review
    calibration: Calibration | None
    start: NotRequired[Start]


def read_metrics(store: Store, evaluation: Manifest) -> dict[str, Any]:
    """The metrics.json of an evaluation; BadDataError where it is not a `Metrics`."""
    uri = evaluation.uri_of("metrics.json")
    value = typed_json.parse(evaluation.read_file(store, "metrics.json"), uri)
    metrics = cast("dict[str, Any]", typed_json.check(value, Metrics, uri))
    groups = {name: metrics[name] for name in ("test", "val", "train")}
    for name, figures in (groups | metrics["by_source"] | metrics["by_label"]).items():
        if bool(figures["films"]) != all(figures[metric] for metric in ("dice", "iou", "hd95")):
            raise BadDataError(
                f"{uri}: {name} has {figures['films']} films and not their figures: "
                f"{typed_json.REMEDY}"
            )
    return metrics
