"""Which version of a model is its champion, the one that masks new films.

`models/<name>/champion.json` names it: {"version", "val_dice", "run_id", "since", "model",
"processed", "val_films", "set_aside", "decision"}, where "model" is the folder of its package,
"processed" the content hash and "val_films" the URI and the sources of the films that it was
validated on, "set_aside" the versions that a person went back from, and "decision" why it won.

The champion changes on validation, never on test: a challenger must beat it on the challenger's own
validation films and be no worse on the champion's. Films of phantoms decide nothing where either
has films of people, nor do films that look like those of an earlier training of one of the two.

Where there is no champion yet, the starter is in its place, unless that is switched off: it has no
validation films in this bucket, so the challenger's own decide.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.errors import AccessError, BadDataError, ConfigError, ConflictError
from jobs.films.known_looks import KnownLooks
from jobs.models import contest_films
from jobs.models.champion_entry import read_champion
from jobs.models.champion_rule import Decision, Scores, decide
from jobs.models.contest_films import PHANTOMS, Comparison, FilmSet
from jobs.models.package import Package, read_package
from jobs.models.starter import published_starter
from jobs.storage.manifest import Manifest, created_by, read_manifest
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)

# What reading films raises where they were deleted, damaged or closed to these keys; a service that
# does not answer is left to the next try.
UNREADABLE = (ConfigError, BadDataError, AccessError)


@dataclass(frozen=True)
class Contest:
    """A challenger against the champion of the models folder, on the validation films of both.

    Attributes:
        models: URI of the folder models/<name>.
        processed: the challenger's own films.
        min_dice: 0..1, the mean Dice below which the challenger never wins.
        forced: a person's reason for crowning the challenger whatever the scores, or "".
        with_starter: whether the starter stands in for a champion that is not there yet.
    """

    store: Store
    models: str
    processed: Manifest
    challenger: Package
    min_dice: float
    run_id: str
    forced: str = ""
    with_starter: bool = False

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
        starter = None if entry or not self.with_starter else self._starter
        version, champion = self.challenger.version, entry.get("version")
        champion = starter.version if starter else champion
        unlike = contest_films.unlike_lungs(self.processed)
        scores = Scores(self.val_dice, unlike_lungs=unlike, starter=bool(starter))
        if champion and champion != version and (self.forced or not unlike):
            scores = self._against_starter(starter) if starter else self._scores(entry)
        decision = decide(version, champion, scores, self.min_dice, self.forced)
        if decision.outcome in ("first", "replaced"):
            self._crown(decision, entry, etag)
        return decision

    @functools.cached_property
    def val_dice(self) -> float:
        return contest_films.mean_dice(self._own_dices)

    @functools.cached_property
    def _own_films(self) -> FilmSet:
        return contest_films.val_films(self.store, self.processed, self._sources)

    @functools.cached_property
    def _own_dices(self) -> list[float]:
        """The challenger's Dice, computed once however often the contest is settled."""
        return contest_films.dices(self.store, self._own_films, self.challenger)

    @functools.cached_property
    def _starter(self) -> Package | None:
        return published_starter(self.store, self.models)

    @property
    def _sources(self) -> Sequence[str]:
        sources: Sequence[str] = self.challenger.model_json["data"]["train_sources"]
        return sources

    def _earlier_decision(self, entry: dict[str, Any]) -> Decision | None:
        """The decision where the challenger is the champion already and need not be scored.

        A run that is tried again after it replaced the champion repeats its decision.
        """
        if entry.get("version") != self.challenger.version:
            return None
        decided = entry.get("decision", {})
        if entry.get("run_id") == self.run_id and decided.get("outcome") in ("first", "replaced"):
            return Decision.of(decided)
        if entry.get("processed") == self.processed.content_hash and "val_dice" in entry:
            version = self.challenger.version
            return decide(version, version, Scores(entry["val_dice"]), self.min_dice)
        return None

    def _against_starter(self, starter: Package) -> Scores:
        """On the challenger's own validation films: the starter has none in this bucket."""
        known = KnownLooks.of(self.challenger.model_json, starter.model_json)
        dices = contest_films.dices(self.store, self._own_films, starter)
        sources = starter.model_json.get("data", {}).get("train_sources", [])
        has_people = self._own_films.has_people() or any(name != PHANTOMS for name in sources)
        return Scores(
            val_dice=self.val_dice,
            champion_dice=contest_films.mean_dice(dices),
            own=contest_films.compare(
                "challenger",
                self._own_films,
                self._own_dices,
                dices,
                only_people=has_people,
                known=known,
                incumbent="starter",
            ),
            starter=True,
            seen=known.count(self._own_films.rows),
        )

    def _scores(self, entry: dict[str, Any]) -> Scores:
        set_aside = self.challenger.version in entry.get("set_aside", [])
        try:
            champion = read_package(self.store, self.models, entry["version"])
            own_dices = contest_films.dices(self.store, self._own_films, champion)
        except UNREADABLE as error:
            if not self.forced:
                raise
            log.warning("the former champion %s cannot be scored: %s", entry["version"], error)
            return Scores(self.val_dice, missing=f"the champion cannot be scored: {error}")
        sources = champion.model_json.get("data", {}).get("train_sources", [])
        known = KnownLooks.of(self.challenger.model_json, champion.model_json)
        seen = known.count(self._own_films.rows)
        is_same = sorted(sources) == sorted(self._sources)
        is_same &= entry.get("processed") == self.processed.content_hash
        own, missing, champions = self._own_films, "", None
        has_people = own.has_people() or any(source != PHANTOMS for source in sources)
        if not is_same:
            try:
                theirs = self._champions_films(entry)
                has_people |= theirs.has_people()
                champions = self._compare_on_champions(theirs, champion, known, has_people)
                seen += known.count(theirs.rows)
            except UNREADABLE as error:
                missing = f"the champion's validation films cannot be read: {error}"
                log.warning("%s: the challenger's own decide", missing)
        return Scores(
            val_dice=self.val_dice,
            champion_dice=contest_films.mean_dice(own_dices),
            own=contest_films.compare(
                "both" if is_same else "challenger",
                own,
                self._own_dices,
                own_dices,
                only_people=has_people,
                known=known,
            ),
            champions=champions,
            missing=missing,
            set_aside=set_aside,
            seen=seen,
        )

    def _champions_films(self, entry: dict[str, Any]) -> FilmSet:
        """The films that champion.json refers to, unchanged since the champion won on them."""
        reference = entry.get("val_films")
        if not reference:
            raise BadDataError(f"{self.uri} does not say where they are")
        processed = read_manifest(self.store, reference["processed"], "preprocess")
        if processed.content_hash != entry.get("processed"):
            raise BadDataError(f"{processed.uri} was written anew with other content")
        return contest_films.val_films(self.store, processed, reference["train_sources"])

    def _compare_on_champions(
        self, films: FilmSet, champion: Package, known: KnownLooks, only_people: bool
    ) -> Comparison | None:
        unseen = contest_films.without_trained_on(self.store, films, self.processed, self._sources)
        if only_people:
            rows = [row for row in unseen.rows if row["source"] != PHANTOMS]
            unseen = FilmSet(unseen.processed, rows)
        challenger_dices, champion_dices = (
            contest_films.dices(self.store, unseen, package)
            for package in (self.challenger, champion)
        )
        return contest_films.compare(
            "champion",
            unseen,
            challenger_dices,
            champion_dices,
            only_people=only_people,
            known=known,
        )

    def _crown(self, decision: Decision, former: dict[str, Any], etag: str) -> None:
        """Write champion.json over the object with `etag`, or where there is none."""
        version = self.challenger.version
        entry = {
            "version": version,
            "val_dice": decision.val_dice,
            "run_id": self.run_id,
            "since": created_by(time.time())["started"],
            "model": f"{self.models}/{version}",
            "processed": self.processed.content_hash,
            "val_films": {"processed": self.processed.uri, "train_sources": [*self._sources]},
            "set_aside": [item for item in former.get("set_aside", []) if item != version],
            "decision": asdict(decision),
        }
        self.store.write_json(self.uri, entry, if_absent=not etag, if_etag=etag)


def choose(contest: Contest) -> Decision:
    """Settle the contest, once more where another run changed the champion meanwhile.

    Raises ConflictError the second time.
    """
    try:
        return contest.settle()
    except ConflictError:
        log.info("another run changed the champion meanwhile: deciding again")
        return contest.settle()
