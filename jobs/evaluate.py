"""evaluate: predicted masks against the raw masks, at the films' full size."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from jobs.errors import ConfigError
from jobs.films.rows import (
    PredictionRow,
    ProcessedRow,
    RawRow,
    ScoredRow,
    check_scored,
    film_of,
    in_step,
    prediction_rows,
    processed_rows,
    raw_rows,
)
from jobs.films.seen_patients import SeenPatients
from jobs.films.training_pairs import chosen_sources
from jobs.films.truths import Mask, Truths, decoding
from jobs.imaging import decode, encode, geometry, masks
from jobs.models.given_model import GivenModel, model_of
from jobs.reports import calibration, summary
from jobs.runtime.parallel import CPU_THREADS
from jobs.runtime.profile import timed
from jobs.runtime.progress import track
from jobs.segmentation import metrics
from jobs.settings.config import EvaluateConfig
from jobs.storage.manifest import FileRow, Manifest, read_input, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

log = logging.getLogger(__name__)

RECIPE = "3"
# Films in worst.png, its columns, and the side of one tile in pixels.
WORST_FILMS, WORST_COLUMNS, WORST_TILE = 12, 3, 360
# dice, iou, quality: 0..1; hd95: percent of the film's diagonal; split: how the network used the
# film's patient, so that a film of a source left out of training has "test".
COLUMNS = [
    "id",
    "patient",
    "source",
    "label",
    "split",
    "dice",
    "iou",
    "hd95",
    "quality",
    "review",
    "reason",
]
# Scoring takes so many times what decoding the predicted mask takes, 2 bytes a pixel.
SCORING = 5
# Of a film that could not be predicted.
LOWEST_SCORES = {"dice": 0.0, "iou": 0.0, "hd95": metrics.FARTHEST}

FilmRows = tuple[RawRow, ProcessedRow, PredictionRow]


def run(config: EvaluateConfig, store: Store) -> Manifest:
    """Score every film with a truth by Dice, IoU and HD95 at the film's full size, a row a film.

    Two empty masks score best, one empty mask scores lowest, and so does a film that could not be
    predicted. The figures under `test` are of films of patients used neither for training nor for
    model selection, from `config.test_sources` where these are given.
    Raises ConfigError where predictions and split are of different films, a source has no films, or
    it is not known which films the model has seen.
    """
    predictions = read_manifest(store, config.predictions, "predict")
    processed = read_manifest(store, config.processed, "preprocess")
    raw = _read_raw(store, predictions, processed)
    model = model_of(store, predictions)
    test_sources = chosen_sources(processed, "--test-sources", config.test_sources)
    work_folder = WorkFolder(
        store,
        config,
        job="evaluate",
        folder="evaluations",
        recipe=RECIPE,
        inputs={
            "predictions": predictions,
            "processed": processed,
            "raw": raw,
            **model.inputs(),
        },
        extra=model.identity_with_films(),
        check_row=check_scored,
    )
    if manifest := work_folder.finished():
        return manifest
    seen = model.seen(processed)
    _log_start(seen)
    scored = _score_films(work_folder, seen, test_sources)
    figures = _write_files(work_folder, scored, seen, model)
    films = raw.counts["films"]
    counts = {"films": films, "scored": len(scored), "skipped": films - len(scored)}
    return work_folder.finish(counts=counts, headline=_headline(figures["test"]))


def _log_start(seen: SeenPatients) -> None:
    """Say which weights the training started from, and how many of the films these have seen."""
    if seen.start:
        films = seen.start["films"]
        log.info(
            "fine-tuned from %s, which has seen %s of the films: their patients do not test",
            *(seen.start["version"], "an unknown number" if films is None else films),
        )


def _truths(work_folder: WorkFolder) -> Truths:
    inputs = work_folder.inputs
    return Truths.of(work_folder.store, inputs["raw"], inputs["processed"])


def _score_films(
    work_folder: WorkFolder, seen: SeenPatients, test_sources: Collection[str]
) -> list[ScoredRow]:
    """Write a row a film; return the rows of the films with a truth."""
    store, inputs = work_folder.store, work_folder.inputs
    raw, predictions = inputs["raw"], inputs["predictions"]
    films = raw.counts["films"]
    # The three manifests have a row a film in the same order, and stream a part at a time.
    row_triples = in_step(
        raw_rows(store, raw),
        processed_rows(store, inputs["processed"]),
        prediction_rows(store, predictions),
    )
    scorer = _Scorer(_truths(work_folder), predictions, seen, test_sources)
    rows = work_folder.write_rows(row_triples, films, scorer, threads=CPU_THREADS)
    return [row for row in track(rows, films, "evaluate") if row["status"] == "ok"]


def _write_files(
    work_folder: WorkFolder, scored: Sequence[ScoredRow], seen: SeenPatients, model: GivenModel
) -> dict[str, Any]:
    """Write metrics.json, per_film.csv and worst.png; return the content of metrics.json."""
    store, inputs = work_folder.store, work_folder.inputs
    tested = [row for row in scored if row["tested"]]
    if not tested:
        log.warning(
            "no test films: every patient of the chosen sources was used for training or model "
            "selection"
        )
    figures = summary.summarise(scored, seen.sources)
    figures["calibration"] = calibration.measure(
        store, inputs["processed"], model.network, {row["id"] for row in tested}
    )
    if seen.start:
        figures["start"] = dict(seen.start)
    text = json.dumps(figures, indent=2, allow_nan=False).encode() + b"\n"
    work_folder.add_file("metrics.json", text, "application/json")
    lines = ({name: value for name, value in row.items() if name in COLUMNS} for row in scored)
    work_folder.add_table("per_film.csv", COLUMNS, lines)
    worst = sorted(tested, key=lambda row: row["dice"])[:WORST_FILMS]
    sheet = _worst_films(_truths(work_folder), inputs["predictions"], worst)
    work_folder.add_file("worst.png", sheet, "image/png")
    return figures


def _headline(test: Mapping[str, Any]) -> dict[str, Any]:
    """The few test figures to print, None without test films."""
    dice, iou, hd95 = (test[name] or {} for name in ("dice", "iou", "hd95"))
    return {
        "test_films": test["films"],
        "test_dice": dice.get("mean"),
        "test_dice_low": dice.get("low"),
        "test_dice_high": dice.get("high"),
        "test_dice_p05": dice.get("p05"),
        "test_iou": iou.get("mean"),
        "test_hd95": hd95.get("mean"),
    }


@dataclass(frozen=True)
class _Scorer:
    """Scores a film from its rows in the three manifests; threads share it."""

    truths: Truths
    predictions: Manifest
    seen: SeenPatients
    test_sources: Collection[str]

    def __call__(self, rows: FilmRows) -> ScoredRow:
        raw, processed, prediction = rows
        if processed["status"] != "ok":
            return {"id": raw["id"], "status": "skipped", "reason": processed["reason"]}
        split = self.seen.split_of(processed["patient"])
        film = {
            **film_of(processed),
            "status": "ok",
            "split": split,
            "tested": split == "test" and processed["source"] in self.test_sources,
        }
        return cast("ScoredRow", {**film, **self._scores(raw, prediction)})

    def _scores(self, raw: RawRow, prediction: PredictionRow) -> dict[str, Any]:
        if prediction["status"] != "ok":
            return {**LOWEST_SCORES, "reason": prediction["reason"]}
        predicted_file = _read(self.truths.store, self.predictions, prediction["mask"])
        truth_files = self.truths.files(raw)
        with decoding(raw, SCORING * decode.working_bytes(predicted_file), truth_files):
            predicted = _mask(predicted_file)
            truth = self.truths.decode(truth_files, predicted.shape)
            with timed("compute"):
                scores = {
                    "dice": metrics.dice(predicted, truth),
                    "iou": metrics.iou(predicted, truth),
                    "hd95": metrics.hd95(predicted, truth),
                }
        rounded = {name: round(score, 6) for name, score in scores.items()}
        return {**rounded, "quality": prediction["quality"], "review": prediction["review"]}


def _read_raw(store: Store, predictions: Manifest, processed: Manifest) -> Manifest:
    """The raw manifest of both `predictions` and `processed`; ConfigError if these differ."""
    films, raw = predictions.inputs.get("films"), processed.inputs["raw"]
    if films is None or films["content_hash"] != raw["content_hash"]:
        raise ConfigError(
            f"{predictions.uri} and {processed.uri} are of different raw films: run predict with "
            f"--films {raw['uri']}"
        )
    return read_input(store, processed, "raw", "download")


def _read(store: Store, manifest: Manifest, entry: FileRow) -> bytes:
    return store.read(manifest.uri_of(entry["key"]), sha256=entry["sha256"])


def _mask(data: bytes) -> Mask:
    with timed("decode"):
        return decode.decode_mask(data)


def _worst_films(truths: Truths, predictions: Manifest, worst: Sequence[ScoredRow]) -> bytes:
    """A PNG of the films of the lowest Dice, truth green and prediction red."""
    ids = [row["id"] for row in worst]
    store = truths.store
    rows = in_step(raw_rows(store, truths.raw), prediction_rows(store, predictions))
    rows_by_id = {film["id"]: (film, prediction) for film, prediction in rows if film["id"] in ids}
    tiles = [
        (
            _overlay(truths, predictions, *rows_by_id[row["id"]]),
            f"{row['id']} · Dice {row['dice']:.3f}",
        )
        for row in worst
    ]
    return encode.encode_png(masks.contact_sheet(tiles, columns=WORST_COLUMNS, tile=WORST_TILE))


def _overlay(
    truths: Truths, predictions: Manifest, film: RawRow, prediction: PredictionRow
) -> NDArray[np.uint8]:
    """The film, RGB uint8 (H, W, 3), its longer side WORST_TILE pixels, both masks outlined."""
    data, truth_files = _read(truths.store, truths.raw, film["film"]), truths.files(film)
    with decoding(film, decode.working_bytes(data), truth_files):
        pixels = decode.decode_film(data)
        colored = [(truths.decode(truth_files, pixels.shape), masks.TRUTH_COLOR)]
        if prediction["status"] == "ok":
            predicted = _mask(_read(truths.store, predictions, prediction["mask"]))
            colored.append((predicted, masks.PREDICTION_COLOR))
        return _tile(pixels, colored)


def _tile(
    pixels: NDArray[np.uint8], colored: Sequence[tuple[Mask, masks.Color]]
) -> NDArray[np.uint8]:
    """A film (H, W) with its masks' outlines, RGB uint8, its longer side WORST_TILE pixels."""
    scale = WORST_TILE / max(pixels.shape)
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    small = [(geometry.resize_lungs(mask, height, width), color) for mask, color in colored]
    return masks.outline(geometry.resize(pixels, height, width), small, thickness=2)
