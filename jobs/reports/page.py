"""The report of a run: one HTML page that loads nothing and needs no JavaScript.

Images are inlined as data URIs, plots as SVG. Names of films come from users' files, so the
template engine escapes every value; a content security policy in the page forbids all other
resources.
"""

from __future__ import annotations

import base64
import heapq
import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.errors import BadDataError
from jobs.films.model_json import TrainedJson, read_trained_json
from jobs.films.rows import (
    PredictionRow,
    ProcessedRow,
    ScoredRow,
    in_step,
    prediction_rows,
    processed_rows,
    scored_rows,
)
from jobs.films.training_pairs import read_pair
from jobs.imaging import decode, geometry, masks
from jobs.reports import svg
from jobs.reports.metrics_json import read_metrics
from jobs.reports.summary import RESAMPLES
from jobs.runtime.byte_budget import film_memory
from jobs.runtime.profile import stages
from jobs.runtime.visible_text import visible
from jobs.segmentation.history import EpochRow, parse_history
from jobs.settings.config import PublishConfig
from jobs.storage.manifest import Manifest, created_by
from jobs.storage.s3 import Store

TEMPLATE = "report.html.j2"
# Pixels and JPEG quality (0..100) of an inlined image.
IMAGE_WIDTH, IMAGE_QUALITY = 1600, 82
# Characters of a setting's value, after which it is cut.
LONGEST_VALUE = 400
NOTHING = "–"

# Test films shown, and their longer side in pixels.
SAMPLES, SAMPLE_SIDE = 6, 560
# Films listed of those flagged for review.
FLAGGED = 10
# What the template shows of the manifests' headers.
SHOWN = (
    ("raw", "counts", ("films",)),
    ("raw", "details", ("layouts", "ignored")),
    ("processed", "counts", ("films", "records", "quarantined")),
    ("processed", "details", ("reasons", "by_source", "by_label")),
    ("predictions", "counts", ("failed",)),
    ("evaluation", "config", ("test_sources",)),
)


def read_contents(store: Store, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """What the page shows of a run's files, by the names in its template.

    Args:
        manifests: by the names raw, processed, trained, predictions and evaluation.

    Raises BadDataError where a file is damaged.
    """
    evaluation, processed, trained = (
        manifests[name] for name in ("evaluation", "processed", "trained")
    )
    for name, part, fields in SHOWN:
        for field in fields:
            # Raises where an edited header lacks it.
            getattr(manifests[name], part)[field]
    history = read_history(store, trained)
    best = _best(history, read_trained_json(store, trained, TrainedJson))
    metrics = read_metrics(store, evaluation)
    calibration = metrics["calibration"]
    return {
        "manifests": manifests,
        "metrics": metrics,
        "quality": _quality(store, manifests),
        "calibration_plot": svg.calibration_svg(calibration["curve"]) if calibration else "",
        "history": history,
        "best": history[best],
        "curves": svg.curves_svg(history, best),
        "samples": [(data_uri(image), row) for image, row in _samples(store, manifests)],
        "contact_sheet": data_uri(_picture(store, processed, "contact_sheet.png")),
        "worst": data_uri(_picture(store, evaluation, "worst.png")),
    }


def build(
    contents: Mapping[str, Any],
    details: Mapping[str, Any],
    *,
    model_json: Mapping[str, Any],
    config: PublishConfig,
) -> bytes:
    """The page as UTF-8.

    Args:
        contents: of `read_contents`.
        details: of run.json: champion, jobs, model and versions.
        model_json: the package's model.json.
    """
    return render(
        **contents,
        config=config,
        published=created_by(time.time())["started"],
        run=details,
        model=model_json,
        resamples=RESAMPLES,
        plot_style={"light": svg.LIGHT, "dark": svg.DARK, "rules": svg.RULES},
    )


def read_history(store: Store, trained: Manifest) -> list[EpochRow]:
    data = trained.read_file(store, "history.json")
    return parse_history(data, trained.uri_of("history.json"))


def _best(history: Sequence[EpochRow], model_json: Mapping[str, Any]) -> int:
    """The index of the epoch of model.json; BadDataError where the history has none."""
    epoch: int = model_json["metrics"]["epoch"]
    if epoch > len(history):
        raise BadDataError(
            f"model.json is of epoch {epoch}, history.json has {len(history)}: one of them was "
            "edited or damaged, run train again with --force"
        )
    return epoch - 1


def render(**contents: Any) -> bytes:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (score, interval, tested_on, number_of, duration, moment, shorten, stages)
    environment.filters.update({function.__name__: function for function in filters})
    return environment.get_template(TEMPLATE).render(contents).encode()


def _shown(value: Any) -> Any:
    """A text's control characters escaped; markup (the plots, the style) is ours."""
    return visible(value) if type(value) is str else value


def _quality(store: Store, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Numbers of films with a quality score and of films flagged, and the FLAGGED lowest of these.

    Over all films, test films or not: a person has to look at those without a truth above all.
    """
    rows = prediction_rows(store, manifests["predictions"])
    scored = [(row["quality"], row["id"], row["review"]) for row in rows if row["status"] == "ok"]
    flagged = [(quality, film) for quality, film, review in scored if review]
    lowest: dict[str, dict[str, Any]] = {
        film: {"id": film, "quality": quality, "dice": None, "split": ""}
        for quality, film in heapq.nsmallest(FLAGGED, flagged)
    }
    for row in scored_rows(store, manifests["evaluation"]):
        if row["id"] in lowest and row["status"] == "ok":
            lowest[row["id"]] |= {"dice": row["dice"], "split": row["split"]}
    return {"scored": len(scored), "flagged": len(flagged), "lowest": [*lowest.values()]}


# Images


def _samples(
    store: Store, manifests: Mapping[str, Manifest]
) -> list[tuple[NDArray[np.uint8], ScoredRow]]:
    """Test films with both outlines and their scores, evenly spaced from the best to the worst."""
    tested = [row for row in scored_rows(store, manifests["evaluation"]) if _is_tested(row)]
    tested.sort(key=lambda row: row["dice"], reverse=True)
    indices = np.linspace(0, len(tested) - 1, min(SAMPLES, len(tested))).round().astype(int)
    sampled = [tested[index] for index in indices]
    ids = {row["id"] for row in sampled}
    rows = in_step(
        processed_rows(store, manifests["processed"]),
        prediction_rows(store, manifests["predictions"]),
    )
    overlays = {
        record["id"]: _overlay(store, manifests, record, prediction)
        for record, prediction in rows
        if record["id"] in ids
    }
    return [(overlays[row["id"]], row) for row in sampled]


def _is_tested(row: ScoredRow) -> bool:
    """Whether the film counts in the test figures and has a predicted mask to show."""
    return row["status"] == "ok" and row["tested"] and "reason" not in row


def _overlay(
    store: Store,
    manifests: Mapping[str, Manifest],
    record: ProcessedRow,
    prediction: PredictionRow,
) -> NDArray[np.uint8]:
    """A processed film, RGB uint8 (H, W, 3), in the film's proportions, both masks outlined."""
    processed, predictions = manifests["processed"], manifests["predictions"]
    scale = SAMPLE_SIDE / max(record["height"], record["width"])
    height, width = (max(1, round(side * scale)) for side in (record["height"], record["width"]))

    placement = geometry.Placement.of(record, processed.config["size"]).at(height, width)
    square, lungs = read_pair(store, processed, record)
    film, truth = placement.to_film(square), lungs.astype(np.float32)
    predicted = _predicted_mask(store, predictions, prediction)
    outlines = [
        (placement.to_film(truth) >= 0.5, masks.TRUTH_COLOR),
        (geometry.resize_lungs(predicted, height, width), masks.PREDICTION_COLOR),
    ]
    return masks.outline(film, outlines)


def _predicted_mask(
    store: Store, predictions: Manifest, prediction: PredictionRow
) -> NDArray[np.bool_]:
    uri, sha256 = predictions.uri_of(prediction["mask"]["key"]), prediction["mask"]["sha256"]
    data = store.read(uri, sha256=sha256)
    try:
        with film_memory(decode.working_bytes(data)):
            return decode.decode_mask(data)
    except decode.ImageError as error:
        raise BadDataError(
            f"{uri} cannot be read ({error}): run predict again with --force"
        ) from error


def data_uri(image: NDArray[np.uint8]) -> str:
    """RGB uint8 (H, W, 3) as the data URI of a JPEG, at most IMAGE_WIDTH pixels wide."""
    thumbnail = Image.fromarray(image)
    thumbnail.thumbnail((IMAGE_WIDTH, 8 * IMAGE_WIDTH), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    # Thin colored outlines bleed where color is stored at half the resolution.
    thumbnail.save(jpeg, "JPEG", quality=IMAGE_QUALITY, optimize=True, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()


def _picture(store: Store, manifest: Manifest, key: str) -> NDArray[np.uint8]:
    """A contact sheet of the manifest, RGB uint8 (H, W, 3).

    Raises BadDataError where it cannot be decoded, or is larger than any that a job draws.
    """
    data = manifest.read_file(store, key)
    try:
        return decode.decode_rgb(data, masks.LARGEST_SHEET)
    except decode.ImageError as error:
        raise BadDataError(
            f"{manifest.uri_of(key)} cannot be read ({error}): run {manifest.job} with --force"
        ) from error


# Filters of the template


def score(number: float | None, digits: int = 3) -> str:
    return NOTHING if number is None else f"{number:.{digits}f}"


def interval(figures: Mapping[str, float | None] | None, digits: int = 3) -> str:
    """The interval of `figures` as "0.912 to 0.948"; NOTHING without an interval."""
    if figures is None or figures["low"] is None:
        return NOTHING
    return f"{score(figures['low'], digits)} to {score(figures['high'], digits)}"


def tested_on(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows of the cross-source table by source, with ", unseen" if it was not trained on."""
    named_rows = []
    for row in rows:
        source = row["tested_on"]
        named_rows.append((source if source in row["trained_on"] else f"{source}, unseen", row))
    return named_rows


def number_of(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(iso: str) -> str:
    """2026-11-23T17:40:09Z as 2026-11-23 17:40 UTC."""
    return f"{iso[:10]} {iso[11:16]} UTC"


def shorten(item: Any) -> str:
    """A setting's value as text of at most LONGEST_VALUE characters; NOTHING if it is empty."""
    text = json.dumps(item, ensure_ascii=False) if isinstance(item, list | dict) else str(item)
    text = NOTHING if item in (None, "", [], {}) else text
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
