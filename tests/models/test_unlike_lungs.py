"""No champion is elected where the true masks look unlike lungs, unless a person forces it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import download, preprocess
from jobs.models import champion, contest_films
from jobs.models.champion import Contest
from jobs.models.champion_rule import Decision, Scores, decide
from jobs.models.package import read_package
from jobs.settings.config import DownloadConfig, PreprocessConfig
from jobs.storage.manifest import Manifest
from tests.support.films import draw_pair, png
from tests.support.pages import Page
from tests.support.published import SIZE, Chain, chain

pytestmark = pytest.mark.slow

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


def test_a_run_on_masks_of_one_lung_elects_no_champion_and_its_report_says_so_first(
    made: Chain, tmp_path: Path
) -> None:
    write_masks(tmp_path, lambda left, right: left)
    one_lung = processed_chain(made, tmp_path)
    published = one_lung.publish(one_lung.five(0.9, more={"columns": 0.5}), name="one-lung")
    sentence = "The true masks of 24 of 24 films look unlike lungs (on one side 24)."
    decision = published.details["champion"]
    assert (decision["outcome"], decision["reason"]) == ("none", sentence)
    assert decision["val_dice"] > 0.8, "a figure that would make it the champion"
    report = made.store.read(published.uri.replace("run.json", "report.html"))
    title = f"{published.config['name']} · manual"
    assert (
        Page(report)
        .text.removeprefix(title)
        .lstrip()
        .startswith(f"{sentence} No champion is elected from such masks.")
    )


def test_a_report_on_lungs_does_not_speak_of_them(made: Chain) -> None:
    published = made.publish(made.five(0.9), name="lungs")
    report = made.store.read(published.uri.replace("run.json", "report.html"))
    assert "unlike lungs" not in Page(report).text


def test_the_named_values_are_lung_in_the_evaluation_too(made: Chain, tmp_path: Path) -> None:
    write_masks(tmp_path, lambda left, right: left + 2 * right.astype(np.uint8))
    labelled = processed_chain(made, tmp_path, mask_values="1,2")
    both, left = (
        labelled.five(1.0, more={"columns": columns})["evaluation"].headline["test_dice"]
        for columns in (1.0, 0.5)
    )
    assert both > 0.9
    # 2 |A and B| / (|A| + |B|) of one of two equal lungs.
    assert left == pytest.approx(2 / 3, abs=0.05)


def write_masks(folder: Path, draw: Callable[[Any, Any], Any]) -> None:
    """The films of `chain` with masks that `draw` makes of the left and the right lung."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(1, 25):
        film, left, right = draw_pair(number)
        name = f"MCUCXR_{number:04d}_{number % 2}.png"
        (folder / "images" / name).write_bytes(png(film))
        (folder / "masks" / name).write_bytes(png(draw(left, right)))


def processed_chain(made: Chain, folder: Path, **settings: Any) -> Chain:
    raw = download.run(DownloadConfig(source=folder.as_uri(), out=made.out), made.store)
    config = PreprocessConfig(
        raw=raw.uri, out=made.out, size=SIZE, split_file=f"{made.out}/split.csv", **settings
    )
    return Chain(made.store, made.out, raw, preprocess.run(config, made.store))
