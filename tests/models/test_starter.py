"""The starter stands in for a champion that is not there yet: what the first model has to beat."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import BadDataError, NotFoundError
from jobs.models import restored_champion
from jobs.models.starter import published_starter, read_starter
from jobs.storage.manifest import Manifest
from tests.support.pages import Page
from tests.support.published import Chain, chain
from tests.support.starters import VERSION, fake_weights, write_starter

pytestmark = pytest.mark.slow

# Shares of the lungs that a network finds: the more, the higher its Dice.
POOR, FAIR, GOOD = 0.55, 0.7, 0.9


@pytest.fixture(scope="module")
def ward(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(s3, tmp_path_factory.mktemp("ward"), stem="ward") as made:
        yield made


@pytest.fixture(scope="module")
def phantoms(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(s3, tmp_path_factory.mktemp("phantoms"), stem="PHANTOM", seed=200) as made:
        yield made


class Shelf:
    """A model of a new name, with a starter of choice."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.name = folder, uuid.uuid4().hex
        patch.setattr("jobs.models.package.STARTER", folder)

    def starter(self, rows: float, **options: Any) -> None:
        write_starter(self.folder, fake_weights(rows), **options)

    def publish(self, made: Chain, five: dict[str, Manifest], **options: Any) -> Manifest:
        return made.publish(five, name=self.name, starter=True, **options)

    def decision(self, made: Chain, rows: float, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.publish(made, made.five(rows), **options).details["champion"]
        return found

    def models(self, made: Chain) -> str:
        return f"{made.out}/models/{self.name}"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(tmp_path / "starter", monkeypatch)


def looks_of(made: Chain, split: str) -> list[bytes]:
    return [bytes.fromhex(row["looks"]) for row in made.films_of(split)]


def test_the_first_model_becomes_the_champion_where_it_beats_the_starter(
    ward: Chain, shelf: Shelf
) -> None:
    shelf.starter(FAIR)
    five = ward.five(GOOD)
    decision = shelf.publish(ward, five, run_id="one").details["champion"]
    assert (decision["outcome"], decision["starter"]) == ("first", True)
    assert decision["version"] == five["trained"].fingerprint
    (row,) = decision["compared"]
    assert (row["films_of"], row["films"]) == ("challenger", {"custom": 4})
    assert (row["challenger"], row["champion"]) == (
        decision["val_dice"],
        decision["champion_dice"],
    )
    assert row["challenger"] > row["champion"]
    assert decision["reason"].startswith("It beats the starter: Dice ")
    assert f"against the starter's {row['champion']:.4f}" in decision["reason"]
    entry = ward.champion(shelf.name)
    assert entry["version"] == five["trained"].fingerprint and entry["decision"] == decision
    again = shelf.publish(ward, five, run_id="one").details["champion"]
    assert again == decision, "a run that is tried again repeats its decision"


def test_a_first_model_that_does_not_beat_it_leaves_the_starter_and_no_champion(
    ward: Chain, shelf: Shelf
) -> None:
    shelf.starter(GOOD)
    published = shelf.publish(ward, ward.five(FAIR), run_id=shelf.name)
    decision = published.details["champion"]
    assert (decision["outcome"], decision["version"]) == ("kept", VERSION)
    assert published.headline["champion"] == "kept"
    assert decision["reason"].startswith("It does not beat the starter: Dice ")
    assert not ward.store.exists(f"{shelf.models(ward)}/champion.json")
    report = Page(ward.store.read(published.uri.replace("run.json", "report.html"))).text
    assert "The starter stays" in report and "Starter, Dice" in report
    assert "The champion stays" not in report


def test_a_model_of_phantoms_never_takes_its_place(phantoms: Chain, shelf: Shelf) -> None:
    shelf.starter(POOR)
    decision = shelf.decision(phantoms, GOOD)
    assert decision["val_dice"] > decision["champion_dice"]
    assert (decision["outcome"], decision["compared"]) == ("kept", [])
    assert decision["reason"] == (
        "There are no validation films of people to compare it with the starter on."
    )


def test_films_that_look_like_those_it_was_trained_on_do_not_count(
    ward: Chain, shelf: Shelf
) -> None:
    seen, *others = looks_of(ward, "val")
    # Three of 255 bits, as a film that was scaled.
    scaled = bytes([seen[0] ^ 0b111, *seen[1:]])
    shelf.starter(FAIR, looks=[scaled])
    decision = shelf.decision(ward, GOOD)
    assert (decision["outcome"], decision["seen"]) == ("first", 1)
    assert decision["compared"][0]["films"] == {"custom": len(others)}
    shelf.name = uuid.uuid4().hex
    shelf.starter(FAIR, looks=[seen, *others])
    decision = shelf.decision(ward, GOOD)
    assert (decision["outcome"], decision["seen"], decision["compared"]) == ("kept", 4, [])


def test_the_films_that_did_not_count_stand_in_the_report_and_the_log(
    ward: Chain, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.starter(FAIR, looks=looks_of(ward, "val")[:1])
    with caplog.at_level("INFO"):
        published = shelf.publish(ward, ward.five(GOOD), run_id=shelf.name)
    assert "1 films that an earlier training has seen did not count" in caplog.text
    report = Page(ward.store.read(published.uri.replace("run.json", "report.html"))).text
    assert "1 validation film did not count: an earlier training has seen films" in report


def test_a_champion_that_is_there_is_the_one_to_beat_whatever_the_starter(
    ward: Chain, shelf: Shelf
) -> None:
    shelf.starter(POOR)
    assert shelf.decision(ward, FAIR)["outcome"] == "first"
    shelf.starter(0.99)
    decision = shelf.decision(ward, GOOD)
    assert (decision["outcome"], decision["starter"]) == ("replaced", False)


def test_where_it_is_switched_off_the_first_model_needs_to_beat_nobody(
    ward: Chain, shelf: Shelf
) -> None:
    shelf.starter(GOOD)
    decision = ward.publish(ward.five(FAIR), name=shelf.name, starter=False).details["champion"]
    assert (decision["outcome"], decision["starter"], decision["compared"]) == ("first", False, [])


def test_force_takes_its_place_and_a_model_below_the_minimum_does_not(
    ward: Chain, shelf: Shelf
) -> None:
    shelf.starter(GOOD)
    below = shelf.decision(ward, FAIR, min_dice=0.99)
    assert (below["outcome"], below["version"]) == ("kept", VERSION)
    forced = shelf.decision(ward, FAIR, force_champion="our own scanner")
    assert (forced["outcome"], forced["forced"]) == ("first", "our own scanner")


def test_a_model_fine_tuned_from_it_does_not_count_its_films_either(
    ward: Chain, shelf: Shelf
) -> None:
    """Against a champion of random weights, the films that the starter saw flatter the other."""
    known = looks_of(ward, "val")[:1]
    shelf.starter(POOR, looks=known)
    assert shelf.decision(ward, FAIR)["outcome"] == "first"
    looks = json.loads((shelf.folder / "model.json").read_text())["data"]["looks"]
    decision = shelf.publish(ward, ward.five(GOOD, looks=looks)).details["champion"]
    assert (decision["outcome"], decision["seen"]) == ("replaced", 1)
    assert [row["films"] for row in decision["compared"]] == [{"custom": 3}]


def test_its_package_is_written_once_as_a_version_of_the_model(ward: Chain, shelf: Shelf) -> None:
    models = shelf.models(ward)
    shelf.starter(FAIR)
    first = published_starter(ward.store, models)
    assert first and first.version == VERSION
    before = {item.uri: item.etag for item in ward.store.list_objects(models)}
    again = published_starter(ward.store, models)
    assert again and again.version == VERSION
    assert {item.uri: item.etag for item in ward.store.list_objects(models)} == before
    shelf.starter(GOOD)
    renewed = published_starter(ward.store, models)
    assert renewed and renewed.version.startswith(f"{VERSION}-")
    assert restored_champion.versions(ward.store, models) == [VERSION, renewed.version]


def test_a_person_can_go_back_to_it(ward: Chain, shelf: Shelf) -> None:
    shelf.starter(FAIR)
    shelf.decision(ward, GOOD)
    entry = restored_champion.restore(ward.store, ward.out, shelf.models(ward), VERSION)
    assert entry["version"] == VERSION
    decision = shelf.decision(ward, GOOD)
    assert decision["outcome"] == "kept", "whom a person set aside does not win again"


def test_without_one_the_log_says_so_in_one_line_and_the_first_model_wins(
    ward: Chain, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        decision = shelf.decision(ward, FAIR)
    assert (decision["outcome"], decision["starter"]) == ("first", False)
    line = f"there is no starter in {shelf.folder}: build it by `make starter FILMS=...`"
    assert caplog.messages.count(line) == 1
    with pytest.raises(NotFoundError, match="there is no starter in"):
        read_starter()


@pytest.mark.parametrize("looks", ["AAAA", "%", 3])
def test_looks_that_are_damaged_are_bad_data(ward: Chain, shelf: Shelf, looks: Any) -> None:
    shelf.starter(FAIR)
    about = json.loads((shelf.folder / "model.json").read_text())
    about["data"]["looks"] = looks
    (shelf.folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(BadDataError, match=r"looks"):
        shelf.decision(ward, GOOD)
