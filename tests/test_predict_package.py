"""predict and evaluate with a published version in place of a trained manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs import evaluate, predict
from jobs.errors import BadDataError, ConfigError, NotFoundError
from jobs.films.known_looks import looks_text
from jobs.settings.config import EvaluateConfig, PredictConfig
from jobs.storage.manifest import Manifest
from tests.support.published import Chain, chain

pytestmark = pytest.mark.slow

NAME = "shelf"


@pytest.fixture(scope="module")
def made(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(s3, tmp_path_factory.mktemp("films")) as built:
        yield built


@pytest.fixture(scope="module")
def five(made: Chain) -> dict[str, Manifest]:
    return made.five(0.7)


@pytest.fixture(scope="module")
def package(made: Chain, five: dict[str, Manifest]) -> str:
    """The URI of the package that publish wrote of the run `five`."""
    uri: str = made.publish(five, name=NAME).details["model"]
    return uri


def copied(made: Chain, package: str, name: str, edit: Callable[[Any], None]) -> str:
    """The URI of a copy of the package with an edited model.json."""
    uri = f"{made.out}/models/{name}/v1"
    model_json = made.store.read_json(f"{package}/model.json")
    edit(model_json)
    made.store.write(f"{uri}/model.safetensors", made.store.read(f"{package}/model.safetensors"))
    made.store.write(f"{uri}/model.json", json.dumps(model_json).encode())
    return uri


def text_of(looks: list[str]) -> str:
    return looks_text(map(bytes.fromhex, looks))


def is_like(row: Any, looks: list[str]) -> bool:
    """Whether the film's hash differs in at most 24 bits from one of these."""
    return any((int(row["looks"], 16) ^ int(other, 16)).bit_count() <= 24 for other in looks)


def masks(made: Chain, trained: str, **options: Any) -> Manifest:
    config = PredictConfig(trained=trained, films=made.raw.uri, out=made.out, **options)
    return predict.run(config, made.store)


def scores(made: Chain, predictions: Manifest) -> Manifest:
    config = EvaluateConfig(predictions=predictions.uri, processed=made.processed.uri, out=made.out)
    return evaluate.run(config, made.store)


def figures(made: Chain, evaluation: Manifest) -> Any:
    return evaluation.read_json(made.store, "metrics.json")


def test_its_masks_and_scores_are_those_of_its_run(
    made: Chain, five: dict[str, Manifest], package: str
) -> None:
    predictions = masks(made, package)
    rows = [list(manifest.rows(made.store)) for manifest in (predictions, five["predictions"])]
    assert rows[0] == rows[1]
    assert predictions.inputs.keys() == {"films"}
    assert predictions.details["package"] == package
    sheet = predictions.read_json(made.store, "sheet.json")
    assert sheet["model"] == {"version": package.rpartition("/")[2], "val_dice": 0.9}
    evaluation = scores(made, predictions)
    assert figures(made, evaluation) == figures(made, five["evaluation"])


def test_the_work_is_found_done_for_the_same_weights_and_recipe_wherever_they_lie(
    made: Chain, package: str
) -> None:
    first = masks(made, package)
    elsewhere = copied(made, package, "elsewhere", lambda model_json: None)
    again = masks(made, elsewhere)
    assert again.reused and again.uri == first.uri

    def renamed(model_json: Any) -> None:
        model_json["intended_use"] = "another sentence"

    assert masks(made, copied(made, package, "renamed", renamed)).uri == first.uri

    def stricter(model_json: Any) -> None:
        model_json["recipe"]["threshold"] = 0.6

    assert masks(made, copied(made, package, "stricter", stricter)).uri != first.uri


def test_a_package_of_other_films_is_scored_on_those_that_look_like_none_of_its_own(
    made: Chain, package: str
) -> None:
    """As the starter, which has the looks of all its films."""
    val = [row["looks"] for row in made.films_of("val")]

    def foreign(model_json: Any) -> None:
        model_json["data"] |= {"processed": "0" * 64, "looks": text_of(val)}

    uri = copied(made, package, "foreign", foreign)
    evaluation = scores(made, masks(made, uri, force=True, run_id="foreign"))
    found = figures(made, evaluation)
    seen = [row["id"] for row in made.processed.rows(made.store) if is_like(row, val)]
    rows = {row["id"]: row for row in evaluation.rows(made.store)}
    assert 4 <= len(seen) < len(rows)
    assert {film for film, row in rows.items() if row["split"] == "train"} == set(seen)
    assert found["test"]["films"] == len(rows) - len(seen)
    assert "start" not in found


def test_where_it_is_not_known_what_it_has_seen_its_masks_are_not_scored(
    made: Chain, package: str
) -> None:
    def foreign(model_json: Any) -> None:
        model_json["data"]["processed"] = "0" * 64

    uri = copied(made, package, "unknown", foreign)
    predictions = masks(made, uri, force=True, run_id="unknown")
    with pytest.raises(ConfigError, match=rf"^{uri} was trained on other films .* not known"):
        scores(made, predictions)


def test_masks_of_a_package_that_was_edited_since_are_not_scored(made: Chain, package: str) -> None:
    uri = copied(made, package, "edited", lambda model_json: None)
    predictions = masks(made, uri, force=True, run_id="edited")

    def stricter(model_json: Any) -> None:
        model_json["recipe"]["threshold"] = 0.6

    copied(made, package, "edited", stricter)
    with pytest.raises(BadDataError, match="other weights or another recipe"):
        scores(made, predictions)


def test_a_version_that_is_not_there_and_weights_that_are_damaged_are_one_clear_error(
    made: Chain, package: str
) -> None:
    models = package.rpartition("/")[0]
    with pytest.raises(NotFoundError, match=f"{models}/absent/model.json"):
        masks(made, f"{models}/absent")
    uri = copied(made, package, "damaged", lambda model_json: None)
    made.store.write(f"{uri}/model.safetensors", b"{}")
    with pytest.raises(BadDataError, match=f"{uri}/model.safetensors"):
        masks(made, uri, force=True, run_id="damaged")


@pytest.mark.parametrize("trained", ["s3://lung/models/v1", "s3://lung/models/a/b/c", "starter"])
def test_a_uri_of_another_form_is_refused_before_anything_is_read(
    made: Chain, trained: str
) -> None:
    with pytest.raises(ConfigError, match=r"--trained .*/models/NAME/VERSION"):
        masks(made, trained)


def test_the_report_names_the_start_and_how_many_films_it_has_seen(made: Chain) -> None:
    test = [row["looks"] for row in made.films_of("test")][:1]
    seen = sum(is_like(row, test) for row in made.processed.rows(made.store))
    origin = {"version": "starter-1", "sha256": "a" * 64}
    fine_tuned = made.five(0.8, more={"origin": origin}, looks=text_of(test))
    found = figures(made, fine_tuned["evaluation"])
    assert found["start"] == {**origin, "films": seen}
    assert found["test"]["films"] < figures(made, made.five(0.8)["evaluation"])["test"]["films"]
    published = made.publish(fine_tuned, name="tuned", run_id="tuned")
    report = made.store.read(published.uri.replace("run.json", "report.html")).decode()
    assert "starter-1" in report and "a" * 64 in report
    assert f"which have seen {seen} of the 24 films, by their looks" in report
