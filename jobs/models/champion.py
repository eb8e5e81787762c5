"""Which version of a model is its champion, the one that masks new films.

`models/<name>/champion.json` names it: {"version", "val_dice", "run_id", "since", "model",
"processed", "decision"}, where "model" is the folder of its package, and "processed" and "decision"
say on which films it won, and how. The champion changes on validation, never on test: challenger
and champion are scored on the same films, the validation split of the challenger's run.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jobs.errors import BadDataError, ConflictError, NotFoundError
from jobs.films.rows import ProcessedRow
from jobs.films.training_pairs import Pair, read_pair, rows_of
from jobs.imaging.geometry import Placement, Placing
from jobs.models.package import Package, read_package
from jobs.runtime.parallel import CPU_THREADS, ordered_map
from jobs.segmentation import metrics
from jobs.storage.manifest import Manifest, created_by
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

DIGITS = 4


@dataclass(frozen=True)
class Decision:
    """What became of the champion: `outcome` is first, replaced, kept or none.

    `version` is the champion after the decision. The figures are mean Dice over the validation
    films of this run; `champion_dice` is None where there was no other version to compare with.
    """

    outcome: str
    reason: str
    version: str | None
    val_dice: float
    champion_dice: float | None
    min_dice: float


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

    score = f"Validation Dice {val_dice:.{DIGITS}f}"
    if champion == challenger:
        return decision("kept", champion, "This version is the champion already.")
    if val_dice < min_dice:
        reason = f"{score} is below the minimum of {min_dice:g}."
        return decision("kept" if champion else "none", champion, reason)
    if champion_dice is None:
        reason = f"{score} reaches the minimum of {min_dice:g}, and there was no champion."
        return decision("first", challenger, reason)
    if val_dice > champion_dice:
        reason = (
            f"{score} beats the former champion's {champion_dice:.{DIGITS}f} on the same films."
        )
        return decision("replaced", challenger, reason)
    reason = f"{score} does not beat the champion's {champion_dice:.{DIGITS}f} on the same films."
    return decision("kept", champion, reason)


@dataclass(frozen=True)
class Contest:
    """A challenger against the champion of the models folder, on the validation films of a run.

    Attributes:
        models: URI of the folder models/<name>.
        processed: the challenger's own films.
        min_dice: 0..1, the mean Dice below which the challenger never wins.
    """

    store: Store
    models: str
    processed: Manifest
    challenger: Package
    min_dice: float
    run_id: str

    @property
    def uri(self) -> str:
        return f"{self.models}/champion.json"

    def settle(self) -> Decision:
        """Score both, decide, and replace champion.json where the challenger wins.

        Raises ConflictError where another run replaced it meanwhile.
        """
        entry, etag = read_champion(self.store, self.uri)
        if decision := self._earlier_decision(entry):
            return decision
        champion = entry.get("version")
        champion_dice = None
        if champion and champion != self.challenger.version:
            champion_dice = self._score(read_package(self.store, self.models, champion))
        decision = decide(
            self.challenger.version, self.val_dice, champion, champion_dice, self.min_dice
        )
        if decision.outcome in ("first", "replaced"):
            self._crown(decision, etag)
        return decision

    @functools.cached_property
    def val_dice(self) -> float:
        """The challenger's mean Dice, computed once however often the contest is settled."""
        return self._score(self.challenger)

    def _earlier_decision(self, entry: dict[str, Any]) -> Decision | None:
        """The decision where the challenger is the champion already and need not be scored.

        A run that is tried again after it replaced the champion repeats its decision.
        """
        if entry.get("version") != self.challenger.version:
            return None
        if entry.get("run_id") == self.run_id and "decision" in entry:
            return Decision(**entry["decision"])
        if entry.get("processed") == self.processed.content_hash:
            version = self.challenger.version
            return decide(version, entry["val_dice"], version, None, self.min_dice)
        return None

    def _crown(self, decision: Decision, etag: str) -> None:
        """Write champion.json over the object with `etag`, or where there is none."""
        entry = {
            "version": self.challenger.version,
            "val_dice": decision.val_dice,
            "run_id": self.run_id,
            "since": created_by(time.time())["started"],
            "model": f"{self.models}/{self.challenger.version}",
            "processed": self.processed.content_hash,
            "decision": asdict(decision),
        }
        self.store.write_json(self.uri, entry, if_absent=not etag, if_etag=etag)

    def _score(self, package: Package) -> float:
        # The validation films of a source left out of the challenger's training are its test films.
        sources = self.challenger.model_json["data"]["train_sources"]
        return mean_val_dice(self.store, self.processed, sources, package)


def choose(contest: Contest) -> Decision:
    """Settle the contest, once more where another run changed the champion meanwhile.

    Raises ConflictError the second time.
    """
    try:
        return contest.settle()
    except ConflictError:
        log.info("another run changed the champion meanwhile: deciding again")
        return contest.settle()


def read_champion(store: Store, uri: str) -> tuple[dict[str, Any], str]:
    """(content of champion.json, its ETag); ({}, "") where there is no champion.

    Raises BadDataError where the file names no version.
    """
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


def mean_val_dice(
    store: Store, processed: Manifest, sources: Sequence[str], package: Package
) -> float:
    """Mean hard Dice of a model over the sources' validation films, at their processed size.

    Rounded to DIGITS digits: the figures compared are the figures shown.
    """
    # torch takes seconds to import, and a contest decided earlier needs none.
    from jobs.films.network import Network

    network = Network(package.model_json, package.weights)
    placing = processed_placing(processed)
    scores = []
    for row, (square, mask) in _val_pairs(store, processed, sources):
        if network.placing.same_fit(placing):
            predicted = network.predict(square, is_placed=True)
        else:
            # Placed in another way: undo that, so that the model places the film in its own.
            placement = _lossless_size(Placement.of(row, placing.size))
            predicted = placement.mask_to_square(network.predict(placement.to_film(square)))
        scores.append(metrics.dice(predicted, mask))
    return round(float(np.mean(scores)), DIGITS)


def processed_placing(processed: Manifest) -> Placing:
    config = processed.config
    return Placing(config["size"], config["fit"], config["crop_borders"])


def _val_pairs(
    store: Store, processed: Manifest, sources: Sequence[str]
) -> Iterator[tuple[ProcessedRow, Pair]]:
    """Each validation film of the sources: its row, and (film, mask) in the square."""

    def read(row: ProcessedRow) -> tuple[ProcessedRow, Pair]:
        return row, read_pair(store, processed, row)

    rows = rows_of(store, processed, "val", sources=sources)
    return ordered_map(read, rows, threads=CPU_THREADS)


def _lossless_size(placement: Placement) -> Placement:
    """The film in its own aspect, at the smallest size that keeps every pixel of the square."""
    box, crop = placement.box.shape, placement.crop.shape
    scale = max(box[0] / crop[0], box[1] / crop[1])
    return placement.at(round(placement.height * scale), round(placement.width * scale))
