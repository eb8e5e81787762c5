"""The champion is guarded: which validation films decide, and what a person may overrule."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.errors import ConfigError, NotFoundError
from jobs.imaging import decode
from jobs.models import contest_films
from jobs.models.champion_rule import Scores, decide
from jobs.models.contest_films import Comparison
from jobs.settings.config import PublishConfig
from jobs.storage.manifest import Manifest
from tests.support.published import SPLIT, Chain, chain

pytestmark = pytest.mark.slow

# Shares of the lungs that a network finds: the more, the higher its Dice.
POOR, FAIR, GOOD = 0.55, 0.7, 0.9
# The films of a patient that are val in SPLIT are train here.
OTHER_SPLIT = ("val", "train", "test", "train", "test", "train")


@pytest.fixture(scope="module")
def sets(
    s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Chain]]:
    """Films of two teams, the first team's under other names and split, and phantoms."""
    with contextlib.ExitStack() as stack:

        def build(stem: str, seed: int, split: Any = SPLIT) -> Chain:
            folder = tmp_path_factory.mktemp(stem)
            return stack.enter_context(chain(s3, folder, stem=stem, seed=seed, split=split))

        yield {
            "ward": build("ward", 0),
            "clinic": build("clinic", 100),
            "renamed": build("renamed", 0, OTHER_SPLIT),
            "phantoms": build("PHANTOM", 200),
        }


@pytest.fixture
def models(sets: dict[str, Chain]) -> Models:
    return Models(sets, uuid.uuid4().hex)


class Models:
    """Versions of one model of a new name, each trained on one set."""

    def __init__(self, sets: dict[str, Chain], name: str) -> None:
        self.sets, self.name = sets, name
        self.out, self.store = sets["ward"].out, sets["ward"].store
        self.uri = f"{self.out}/models/{name}/champion.json"

    def five(self, trained_on: str, **rows: float) -> dict[str, Manifest]:
        """A run on the set; its network finds `rows[set]` of the lungs in each set's films."""
        special = {
            total: share
            for other, share in rows.items()
            if other != trained_on
            for total in self.sums(other)
        }
        return self.sets[trained_on].five(rows[trained_on], special=special)

    def sums(self, name: str) -> list[str]:
        made = self.sets[name]
        keys = (made.processed.uri_of(row["image"]["key"]) for row in made.films_of("val"))
        return [str(decode.decode_film(made.store.read(key)).sum()) for key in keys]

    def publish(self, five: dict[str, Manifest], **options: Any) -> dict[str, Any]:
        """The decision on the champion."""
        published = self.sets["ward"].publish(five, name=self.name, **{"out": self.out, **options})
        decision: dict[str, Any] = published.details["champion"]
        return decision

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = self.store.read_json(self.uri)
        return entry


def films(decision: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    return [(row["films_of"], row["films"]) for row in decision["compared"]]


def test_a_champion_of_people_does_not_lose_to_phantoms_on_phantoms(models: Models) -> None:
    people = models.five("ward", ward=GOOD, phantoms=POOR)
    models.publish(people)
    decision = models.publish(models.five("phantoms", phantoms=GOOD, ward=POOR))
    assert decision["val_dice"] > decision["champion_dice"]
    assert decision["outcome"] == "kept"
    assert films(decision) == [("champion", {"custom": 4})]
    assert decision["compared"][0]["high"] < 0
    assert models.entry()["version"] == people["trained"].fingerprint


def test_a_model_of_phantoms_wins_where_it_is_better_on_people_beyond_chance(
    models: Models,
) -> None:
    models.publish(models.five("ward", ward=FAIR, phantoms=GOOD))
    decision = models.publish(models.five("phantoms", phantoms=FAIR, ward=GOOD))
    assert decision["outcome"] == "replaced"
    assert films(decision) == [("champion", {"custom": 4})]
    assert decision["compared"][0]["low"] > 0


def test_a_model_of_people_wins_over_one_of_phantoms_on_people_alone(models: Models) -> None:
    models.publish(models.five("phantoms", phantoms=GOOD, ward=POOR))
    decision = models.publish(models.five("ward", ward=FAIR, phantoms=POOR))
    assert decision["outcome"] == "replaced"
    assert films(decision) == [("challenger", {"custom": 4})]


def test_phantoms_decide_between_models_of_phantoms(models: Models) -> None:
    models.publish(models.five("phantoms", phantoms=FAIR))
    decision = models.publish(models.five("phantoms", phantoms=GOOD))
    assert decision["outcome"] == "replaced"
    assert films(decision) == [("both", {"phantoms": 4})]


def test_a_challenger_that_is_worse_on_the_champions_films_does_not_win(models: Models) -> None:
    models.publish(models.five("ward", ward=GOOD, clinic=POOR))
    decision = models.publish(models.five("clinic", clinic=GOOD, ward=POOR))
    assert decision["outcome"] == "kept"
    assert films(decision) == [("challenger", {"custom": 4}), ("champion", {"custom": 4})]
    own, champions = decision["compared"]
    assert own["challenger"] > own["champion"] and champions["high"] < 0


def test_a_challenger_that_is_better_on_its_own_and_equal_on_the_champions_wins(
    models: Models,
) -> None:
    models.publish(models.five("ward", ward=GOOD, clinic=POOR))
    decision = models.publish(models.five("clinic", clinic=GOOD, ward=GOOD))
    assert decision["outcome"] == "replaced"
    assert (decision["compared"][1]["low"], decision["compared"][1]["high"]) == (0, 0)


def test_films_that_the_challenger_was_trained_on_do_not_count_whatever_their_names(
    models: Models,
) -> None:
    models.publish(models.five("ward", ward=GOOD, renamed=POOR))
    decision = models.publish(models.five("renamed", renamed=FAIR, ward=POOR))
    assert decision["outcome"] == "replaced"
    assert films(decision) == [("challenger", {"custom": 4})]


@pytest.mark.parametrize("trained_on", ["clinic", "phantoms"])
@pytest.mark.parametrize("lost", ["reference", "manifest", "image"])
def test_where_the_champions_films_are_lost_the_challengers_films_of_people_decide(
    models: Models, trained_on: str, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    ward = models.sets["ward"]
    models.publish(models.five("ward", ward=GOOD, clinic=POOR, phantoms=POOR))
    entry = models.entry()
    if lost == "reference":  # as version 0.1.0 left it
        del entry["val_films"]
        entry["decision"] = {
            name: entry["decision"][name] for name in ("outcome", "reason", "version", "min_dice")
        } | {"val_dice": 0.9, "champion_dice": None}
        models.store.write_json(models.uri, entry)
    key = "manifest.json" if lost == "manifest" else ward.films_of("val")[0]["image"]["key"]
    uri = ward.processed.uri_of(key)
    challenger = models.five(trained_on, **{trained_on: GOOD}, ward=POOR)
    data = models.store.read(uri)
    if lost != "reference":
        models.store.delete([uri])
    with caplog.at_level("INFO"):
        decision = models.publish(challenger)
    models.store.write(uri, data)
    assert decision["outcome"] == ("replaced" if trained_on == "clinic" else "kept")
    reason = "does not say where" if lost == "reference" else uri
    assert reason in decision["missing"] and reason in caplog.text
    counted = [("challenger", {"custom": 4})] if trained_on == "clinic" else []
    assert films(decision) == counted


def test_the_decision_stands_in_champion_json_and_in_one_line_of_the_log(
    models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    models.publish(models.five("ward", ward=FAIR))
    with caplog.at_level("INFO"):
        decision = models.publish(models.five("ward", ward=GOOD))
    assert models.entry()["decision"] == decision
    (line,) = (
        text
        for text in caplog.messages
        if text.startswith("champion of") and "0." in text and "replaced" in text
    )
    (row,) = decision["compared"]
    for figure in (row["challenger"], row["champion"], row["low"], row["high"]):
        assert f"{figure:.4f}" in line
    assert "(4: custom 4" in line and "\n" not in line


def test_the_report_names_the_films_that_decided(models: Models) -> None:
    models.publish(models.five("ward", ward=GOOD, clinic=POOR))
    models.publish(models.five("clinic", clinic=GOOD, ward=POOR), run_id=models.name)
    text = models.store.read(f"{models.out}/runs/{models.name}/report.html").decode()
    assert "validation, this model’s: custom 4" in text
    assert "validation, the champion’s: custom 4" in text


def test_a_forced_champion_wins_whatever_the_scores_and_the_reason_is_recorded(
    models: Models,
) -> None:
    models.publish(models.five("ward", ward=GOOD))
    worse = models.five("ward", ward=POOR)
    decision = models.publish(worse, min_dice=0.99, force_champion="the new scanner")
    assert (decision["outcome"], decision["forced"]) == ("replaced", "the new scanner")
    assert models.entry()["version"] == worse["trained"].fingerprint
    assert models.entry()["decision"]["forced"] == "the new scanner"
    assert "the new scanner" in decision["reason"]


def test_a_champion_whose_package_is_lost_can_be_replaced_by_force_alone(models: Models) -> None:
    models.publish(models.five("ward", ward=GOOD))
    models.store.delete([f"{models.entry()['model']}/model.json"])
    with pytest.raises(NotFoundError):
        models.publish(models.five("ward", ward=FAIR))
    decision = models.publish(models.five("ward", ward=FAIR), force_champion="lost")
    assert decision["outcome"] == "replaced"


def test_the_force_is_part_of_the_identity_only_where_it_is_set() -> None:
    names = ("raw", "processed", "trained", "predictions", "evaluation")
    uris: dict[str, Any] = dict.fromkeys(names, "s3://lung/x/manifest.json")

    def identity(**options: Any) -> dict[str, Any]:
        return PublishConfig(out="s3://lung/x", **uris, **options).identity()

    assert identity() == {"name": "lung-unet", "min_dice": 0.9}
    assert identity(force_champion="why")["force_champion"] == "why"


@pytest.mark.parametrize("reason", ["two\nlines", "a \x1b[31mred one"])
def test_a_reason_that_is_not_one_line_is_refused(models: Models, reason: str) -> None:
    with pytest.raises(ConfigError, match="--force-champion"):
        models.publish(models.five("ward", ward=GOOD), force_champion=reason)


def comparison(challenger: float, champion: float, low: float | None, high: float | None) -> Any:
    return Comparison("champion", {"custom": 3}, 3, challenger, champion, low, high)


WON, LOST = comparison(0.95, 0.94, 0.0, 0.02), comparison(0.93, 0.94, -0.02, 0.0)
EQUAL = comparison(0.94, 0.94, -0.01, 0.01)
SURELY_WON, SURELY_LOST = comparison(0.9, 0.8, 0.01, 0.2), comparison(0.8, 0.9, -0.2, -0.01)
ONE_WON, ONE_LOST = comparison(0.9, 0.8, None, None), comparison(0.8, 0.9, None, None)


@pytest.mark.parametrize(
    ("former", "val_dice", "own", "champions", "outcome"),
    [
        (None, 0.89, None, None, "none"),
        (None, 0.90, None, None, "first"),
        ("new", 0.10, None, None, "kept"),
        ("old", 0.89, WON, None, "kept"),
        ("old", 0.90, WON, None, "replaced"),
        ("old", 0.90, EQUAL, None, "kept"),
        ("old", 0.90, LOST, None, "kept"),
        ("old", 0.90, LOST, SURELY_WON, "kept"),
        ("old", 0.90, WON, LOST, "replaced"),
        ("old", 0.90, WON, SURELY_LOST, "kept"),
        ("old", 0.90, WON, ONE_WON, "replaced"),
        ("old", 0.90, WON, ONE_LOST, "kept"),
        ("old", 0.90, None, WON, "kept"),
        ("old", 0.90, None, SURELY_WON, "replaced"),
        ("old", 0.90, None, ONE_WON, "kept"),
        ("old", 0.90, None, None, "kept"),
    ],
)
def test_the_champion_rule(
    former: str | None, val_dice: float, own: Any, champions: Any, outcome: str
) -> None:
    scores = Scores(val_dice, own=own, champions=champions)
    decision = decide("new", former, scores, 0.9)
    version = "new" if outcome in ("first", "replaced") else former
    assert (decision.outcome, decision.version) == (outcome, version)
    assert decision.reason.endswith(".")


def test_differences_are_paired_by_film_and_drawn_by_patient() -> None:
    """Two patients, one with two films: each resample's mean is one of three, counted by hand."""
    rows: Any = [{"patient": patient, "source": "custom"} for patient in ("a", "a", "b")]
    films_of_two = contest_films.FilmSet(None, rows)  # type: ignore[arg-type]
    found = contest_films.compare(
        "champion", films_of_two, [0.9, 0.8, 0.5], [0.8, 0.8, 0.7], only_people=True
    )
    assert found is not None
    assert (found.challenger, found.champion) == (0.7333, 0.7667)
    # Patient a alone: (0.1 + 0) / 2; patient b alone: -0.2; each drawn twice in a quarter of cases.
    assert (found.low, found.high) == (-0.2, 0.05)
    assert not found.is_worse() and json.dumps(found.films) == '{"custom": 3}'
