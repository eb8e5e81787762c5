"""Which version of a model is its champion, the one that masks new films.

`models/<name>/champion.json` names it: {"version", "val_dice", "run_id", "since", "model",
"processed", "decision"}, where "model" is the folder of its package, model.safetensors and
model.json, and the last two say on which films it won, and how. It changes on validation, never on
test: challenger and champion are scored on the same films, this run's validation split.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jobs.errors import BadDataError, ConflictError, NotFoundError
from jobs.films.masker import load_predictor, placing
from jobs.films.training_pairs import Pair, read_pair, rows_of
from jobs.imaging.geometry import Placement
from jobs.runtime.parallel import CPU_THREADS, ordered_map
from jobs.segmentation import metrics
from jobs.storage.manifest import Manifest, Row, created_by
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

DIGITS = 4


@dataclass(frozen=True)
class Package:
    """A model under models/<name>/<version>: what model.json says, and the weights' bytes."""

    version: str
    about: Mapping[str, Any]
    weights: bytes


@dataclass(frozen=True)
class Decision:
    """`outcome` is first, replaced, kept or none; `version` is the champion after it.

    The figures are mean Dice over this run's validation films; None where nothing was to compare.
    """

    outcome: str
    reason: str
    version: str | None
    val_dice: float
    champion_dice: float | None
    min_dice: float


def read_package(store: Store, models: str, version: str) -> Package:
    about = store.read_json(f"{models}/{version}/model.json")
    sha256 = about["weights"]["sha256"]
    weights = store.read(f"{models}/{version}/model.safetensors", sha256=sha256)
    return Package(version, about, weights)


def decide(
    challenger: str,
    val_dice: float,
    champion: str | None,
    champion_dice: float | None,
    min_dice: float,
) -> Decision:
    """The champion rule, on versions and their mean Dice over the same validation films.

    A challenger that reaches `min_dice` becomes the champion where there is none, or where it is
    strictly better than the champion. `champion_dice` is None where it is the same version.
    """

    def decision(outcome: str, version: str | None, reason: str) -> Decision:
        return Decision(outcome, reason, version, val_dice, champion_dice, min_dice)

    own = f"Validation Dice {val_dice:.{DIGITS}f}"
    if champion == challenger:
        return decision("kept", champion, "This version is the champion already.")
    if val_dice < min_dice:
        reason = f"{own} is below the minimum of {min_dice:g}."
        return decision("kept" if champion else "none", champion, reason)
    if champion_dice is None:
        reason = f"{own} reaches the minimum of {min_dice:g}, and there was no champion."
        return decision("first", challenger, reason)
    if val_dice > champion_dice:
        reason = f"{own} beats the former champion's {champion_dice:.{DIGITS}f} on the same films."
        return decision("replaced", challenger, reason)
    reason = f"{own} does not beat the champion's {champion_dice:.{DIGITS}f} on the same films."
    return decision("kept", champion, reason)


def choose(
    store: Store,
    models: str,
    processed: Manifest,
    challenger: Package,
    *,
    min_dice: float,
    run_id: str,
) -> Decision:
    """Score both on the validation films of `processed`, decide, and replace champion.json.

    A champion that another run named meanwhile is scored too, once; ConflictError the second time.
    A run that is tried again after it replaced the champion says so again.
    """
    uri = f"{models}/champion.json"
    # The validation films of a source that the challenger was not trained on are its test films.
    sources = challenger.about["data"].get("train_sources")

    def score(model: Package) -> float:
        return _val_dice(store, processed, sources, model)

    own_dice = functools.cache(lambda: score(challenger))

    def settle() -> Decision:
        entry, etag = read_champion(store, uri)
        champion, theirs = entry.get("version"), None
        if champion == challenger.version:
            if entry.get("run_id") == run_id and "decision" in entry:
                return Decision(**entry["decision"])
            if entry.get("processed") == processed.content_hash:
                return decide(champion, entry["val_dice"], champion, None, min_dice)
        elif champion:
            theirs = score(read_package(store, models, champion))
        val_dice = own_dice()
        decision = decide(challenger.version, val_dice, champion, theirs, min_dice)
        if decision.outcome in ("first", "replaced"):
            entry = {
                "version": challenger.version,
                "val_dice": val_dice,
                "run_id": run_id,
                "since": created_by(time.time())["started"],
                "model": f"{models}/{challenger.version}",
                "processed": processed.content_hash,
                "decision": asdict(decision),
            }
            store.write_json(uri, entry, if_absent=not etag, if_etag=etag)
        return decision

    try:
        return settle()
    except ConflictError:
        log.info("another run changed the champion meanwhile: deciding again")
        return settle()


def read_champion(store: Store, uri: str) -> tuple[dict[str, Any], str]:
    """(what champion.json says, its ETag); ({}, "") where there is none."""
    try:
        text, etag = store.read_tagged(uri)
    except NotFoundError:
        return {}, ""
    try:
        entry: dict[str, Any] = json.loads(text)
        entry["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(
            f"{uri} names no version ({error!r}): delete it, and the next model that reaches the "
            "minimum becomes the champion"
        ) from error
    return entry, etag


def _val_dice(
    store: Store, processed: Manifest, sources: Sequence[str] | None, model: Package
) -> float:
    """Mean hard Dice over the sources' validation films at the size they were processed to.

    To DIGITS digits: what is shown is what is compared, and a smaller difference means nothing.
    """
    predict = load_predictor(model.about, model.weights)
    is_at_home = _fit_of(model.about["recipe"]) == _fit_of(processed.config)
    rows = rows_of(store, processed, "val", sources=sources)

    def read(row: Row) -> tuple[Row, Pair]:
        return row, read_pair(store, processed, row)

    scores = []
    for row, (square, mask) in ordered_map(read, rows, threads=CPU_THREADS):
        if is_at_home:
            found = predict(square)
        else:
            own = _own_shape(Placement.of(row, len(square)))
            found = own.mask_to_square(predict(own.to_film(square)))
        scores.append(metrics.dice(found, mask))
    return round(float(np.mean(scores)), DIGITS)


def _fit_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How `settings` place a film, whatever the square's size, which a model makes its own."""
    return placing({**settings, "spatial_size": 0})


def _own_shape(placement: Placement) -> Placement:
    """The film at its own proportions, as small as it can be and lose nothing of the square.

    A model that was trained on films placed in another way is to place these its own way.
    """
    box, crop = placement.box.shape, placement.crop.shape
    scale = max(box[0] / crop[0], box[1] / crop[1])
    return placement.at(round(placement.height * scale), round(placement.width * scale))
