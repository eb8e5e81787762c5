"""The report of a run: one HTML page that loads nothing and needs no JavaScript.

Pictures are inlined, curves are SVG. Names of films come from users' files, so every value is
escaped by the template engine; a policy in the page itself forbids whatever is not inlined.
"""

from __future__ import annotations

import base64
import heapq
import io
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.imaging import decode, geometry, masks
from jobs.reports.summary import RESAMPLES
from jobs.reports.svg import calibration_svg, curves_svg
from jobs.runtime.profile import stages
from jobs.settings.config import PublishConfig
from jobs.storage.manifest import Manifest, Row, created_by
from jobs.storage.s3 import Store

TEMPLATE = "report.html.j2"
PICTURE_WIDTH, PICTURE_QUALITY = 1600, 82
LONGEST_VALUE = 400
NOTHING = "–"

SAMPLES, SAMPLE_SIDE = 6, 560
FLAGGED = 10


def build(
    store: Store,
    manifests: Mapping[str, Manifest],
    details: Mapping[str, Any],
    *,
    about: Mapping[str, Any],
    config: PublishConfig,
) -> bytes:
    """The page as UTF-8.

    Args:
        manifests: by the names raw, processed, trained, predictions and evaluation.
        details: of run.json: champion, jobs and versions.
        about: the package's model.json.
    """
    evaluation, processed = manifests["evaluation"], manifests["processed"]
    history = json.loads(manifests["trained"].read_file(store, "history.json"))["epochs"]
    best = [row["epoch"] for row in history].index(about["metrics"]["epoch"])
    metrics = json.loads(evaluation.read_file(store, "metrics.json"))
    calibration = metrics["calibration"]
    return render(
        config=config,
        published=created_by(time.time())["started"],
        manifests=manifests,
        run=details,
        about=about,
        metrics=metrics,
        resamples=RESAMPLES,
        predicted=_predicted(store, manifests),
        calibration_plot=calibration_svg(calibration["curve"]) if calibration else "",
        history=history,
        best=history[best],
        curves=curves_svg(history, best),
        samples=[(data_uri(image), row) for image, row in _samples(store, manifests)],
        contact_sheet=data_uri(_decoded(processed.read_file(store, "contact_sheet.png"))),
        worst=data_uri(_decoded(evaluation.read_file(store, "worst.png"))),
    )


def render(**contents: Any) -> bytes:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (score, interval, tested_on, number_of, duration, moment, shorten, crosstab, stages)
    environment.filters.update({function.__name__: function for function in filters})
    return environment.get_template(TEMPLATE).render(contents).encode()


def _predicted(store: Store, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Films with a quality score, those flagged for review, and the FLAGGED lowest of these.

    Over all films, not the test films alone: the ones to look at are those without a truth.
    """
    rows = manifests["predictions"].rows(store)
    scored = [(row["quality"], row["id"], row["review"]) for row in rows if "quality" in row]
    flagged = [(quality, film) for quality, film, is_flagged in scored if is_flagged]
    lowest = {
        film: {"id": film, "quality": quality, "dice": None, "split": ""}
        for quality, film in heapq.nsmallest(FLAGGED, flagged)
    }
    for row in manifests["evaluation"].rows(store):
        if row["id"] in lowest:
            lowest[row["id"]] |= {name: row[name] for name in ("dice", "split") if name in row}
    return {"scored": len(scored), "flagged": len(flagged), "lowest": [*lowest.values()]}


# Pictures


def _samples(
    store: Store, manifests: Mapping[str, Manifest]
) -> list[tuple[NDArray[np.uint8], Row]]:
    """Test films with both outlines and their scores, evenly spaced from the best to the worst."""
    scored = [row for row in manifests["evaluation"].rows(store) if _was_tested(row)]
    scored.sort(key=lambda row: row["dice"], reverse=True)
    places = np.linspace(0, len(scored) - 1, min(SAMPLES, len(scored))).round()
    chosen = [scored[int(place)] for place in places]
    wanted = {row["id"] for row in chosen}
    both = zip(*(manifests[n].rows(store) for n in ("processed", "predictions")), strict=True)
    drawn = {
        record["id"]: _overlay(store, manifests, record, prediction)
        for record, prediction in both
        if record["id"] in wanted
    }
    return [(drawn[row["id"]], row) for row in chosen]


def _was_tested(row: Row) -> bool:
    return row["status"] == "ok" and row["tested"] and "reason" not in row


def _overlay(
    store: Store, manifests: Mapping[str, Manifest], record: Row, prediction: Row
) -> NDArray[np.uint8]:
    """A processed film in its own proportions, RGB, truth and prediction outlined."""
    processed, predictions = manifests["processed"], manifests["predictions"]
    scale = SAMPLE_SIDE / max(record["height"], record["width"])
    shape = [max(1, round(record[side] * scale)) for side in ("height", "width")]

    def read(manifest: Manifest, entry: Row) -> bytes:
        return store.read(manifest.uri_of(entry["key"]), sha256=entry["sha256"])

    placement = geometry.Placement.of(record, processed.config["size"]).at(*shape)
    film = placement.to_film(decode.decode_film(read(processed, record["image"])))
    truth, predicted = (
        decode.decode_mask(data).astype(np.float32)
        for data in (read(processed, record["mask"]), read(predictions, prediction["mask"]))
    )
    outlines = [
        (placement.to_film(truth) >= 0.5, masks.TRUTH_COLOR),
        (geometry.resize(predicted, *shape) >= 0.5, masks.PREDICTION_COLOR),
    ]
    return masks.outline(film, outlines)


def data_uri(image: NDArray[np.uint8]) -> str:
    """An RGB image, uint8 (H, W, 3), as the data URI of a JPEG of at most PICTURE_WIDTH pixels."""
    drawn = Image.fromarray(image)
    drawn.thumbnail((PICTURE_WIDTH, 8 * PICTURE_WIDTH), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    # Thin colored outlines bleed where color is stored at half the resolution.
    drawn.save(packed, "JPEG", quality=PICTURE_QUALITY, optimize=True, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()


def _decoded(png: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


# Words and figures


def score(number: float | None, digits: int = 3) -> str:
    return NOTHING if number is None else f"{number:.{digits}f}"


def interval(figures: Mapping[str, float | None] | None, digits: int = 3) -> str:
    """0.912 to 0.948; NOTHING where there is none."""
    if figures is None or figures["low"] is None:
        return NOTHING
    return f"{score(figures['low'], digits)} to {score(figures['high'], digits)}"


def tested_on(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows of the cross-source table by their names, which tell what was never trained on."""
    named = []
    for row in rows:
        source = row["tested_on"]
        named.append((source if source in row["trained_on"] else f"{source}, unseen", row))
    return named


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
    text = json.dumps(item, ensure_ascii=False) if isinstance(item, list | dict) else str(item)
    text = NOTHING if item in (None, "", [], {}) else text
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


def crosstab(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """{"montgomery/train": n, ...} as {"montgomery": {"train": n, ...}}."""
    table: dict[str, dict[str, int]] = {}
    for key, count in counts.items():
        group, _, split = key.rpartition("/")
        table.setdefault(group, {})[split] = count
    return table
