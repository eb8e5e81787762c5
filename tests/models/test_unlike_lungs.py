"""No champion is elected where the true masks look unlike lungs, unless a person forces it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from jobs.models import champion, contest_films
from jobs.models.champion import Contest, Decision, Scores, decide
from jobs.models.package import read_package
from jobs.storage.manifest import Manifest
from tests.support.published import Chain, chain

SENTENCE = "The true masks of 9 of 24 films look unlike lungs (on one side 9)."


@pytest.fixture(scope="module")
def made(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(s3, tmp_path_factory.mktemp("films")) as built:
        yield built


def judged(processed: Manifest, reasons: Mapping[str, int]) -> Manifest:
    return replace(processed, details={**processed.details, "unlike_lungs": dict(reasons)})


def settled(made: Chain, name: str, processed: Manifest, rows: float, forced: str = "") -> Decision:
    """The decision on the model that finds the upper `rows` of the lungs."""
    five = made.five(rows)
    made.publish(five, name="shelf")
    models = f"{made.out}/models/{name}"
    shelf = read_package(made.store, f"{made.out}/models/shelf", five["trained"].fingerprint)
    contest = Contest(
        store=made.store,
        models=models,
        processed=processed,
        challenger=shelf,
        min_dice=0.5,
        run_id="run",
        forced=forced,
    )
    return champion.choose(contest)


@pytest.mark.parametrize(
    ("reasons", "sentence"),
    [
        ({}, ""),
        ({"on one side": 4}, ""),
        ({"on one side": 9}, SENTENCE),
        ({"x": 3, "y": 2}, "The true masks of 5 of 24 films look unlike lungs (x 3, y 2)."),
    ],
)
def test_over_a_fifth_of_the_masks_must_look_unlike_lungs(
    made: Chain, reasons: Mapping[str, int], sentence: str
) -> None:
    assert contest_films.unlike_lungs(judged(made.processed, reasons)) == sentence


def test_films_that_an_earlier_version_processed_are_not_judged(made: Chain) -> None:
    earlier: dict[str, Any] = dict(made.processed.details)
    del earlier["unlike_lungs"]
    assert contest_films.unlike_lungs(replace(made.processed, details=earlier)) == ""


def test_a_model_of_such_masks_is_no_first_champion_unless_forced(made: Chain) -> None:
    name, processed = uuid.uuid4().hex, judged(made.processed, {"on one side": 9})
    decision = settled(made, name, processed, 0.9)
    assert (decision.outcome, decision.version, decision.reason) == ("none", None, SENTENCE)
    assert not made.store.exists(f"{made.out}/models/{name}/champion.json")
    assert settled(made, name, processed, 0.9, forced="one lung is wanted").outcome == "first"
    assert made.champion(name)["decision"]["forced"] == "one lung is wanted"


def test_a_model_of_such_masks_does_not_replace_a_champion_unless_forced(made: Chain) -> None:
    name, processed = uuid.uuid4().hex, judged(made.processed, {"on one side": 9})
    first = settled(made, name, made.processed, 0.6)
    decision = settled(made, name, processed, 0.9)
    assert (decision.outcome, decision.version) == ("kept", first.version)
    assert decision.reason == SENTENCE and decision.val_dice > first.val_dice
    assert settled(made, name, processed, 0.9, forced="wanted").outcome == "replaced"


def test_the_masks_are_named_before_the_score() -> None:
    decision = decide("new", "old", Scores(0.1, unlike_lungs=SENTENCE), 0.5)
    assert (decision.outcome, decision.reason) == ("kept", SENTENCE)
