"""evaluate on a made-up network: scores by hand, and which films test it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats
from sklearn.metrics import f1_score, jaccard_score

from jobs import download, evaluate, preprocess
from jobs.errors import ConfigError
from jobs.imaging import decode
from jobs.segmentation import inference
from jobs.settings.config import (
    DownloadConfig,
    EvaluateConfig,
    PredictConfig,
    PreprocessConfig,
    TrainConfig,
)
from jobs.storage.manifest import Manifest, Row
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from tests.support.films import draw_pair, write_montgomery

SIZE, FILMS = 64, 30
SHENZHEN = range(21, 31)  # the numbers of the films that bear Shenzhen's names
SPLITS = ("train", "val", "test", "train", "train")


def truth_of(film_id: str) -> NDArray[np.bool_]:
    _, left, right = draw_pair(int(film_id.split("_")[1]))
    return left | right


def found_in(film_id: str) -> NDArray[np.bool_]:
    """The truth some pixels aside, as many as the film's number tells."""
    return np.roll(truth_of(film_id), int(film_id.split("_")[1]) % 7, axis=1)


def call_dark_lung(
    model: None, images: NDArray[np.uint8], *, precision: str
) -> NDArray[np.float32]:
    return np.where(images < 125, 0.9, 0.1).astype(np.float32)


@dataclass(frozen=True)
class Films:
    """Films of two sources in S3, split by their numbers; a network is made by `train`."""

    store: Store
    out: str
    raw: Manifest
    processed: Manifest

    def train(self, processed: Manifest | None = None, **data: Any) -> Manifest:
        """A network whose model.json says `data` of what it was trained on."""
        processed = processed or self.processed
        stage = WorkFolder(
            self.store,
            TrainConfig(processed=processed.uri, out=self.out),
            job="train",
            folder="trained",
            recipe="made up",
            inputs={"processed": processed},
            extra=data,
        )
        if found := stage.finished():
            return found
        recipe = {"spatial_size": SIZE, "threshold": 0.5, "fit": "stretch", "precision": "auto"}
        about = {"architecture": {}, "recipe": recipe, "data": {"processed": "", **data}}
        stage.add_file("model.json", json.dumps(about).encode())
        stage.add_file("model.safetensors", b"")
        return stage.finish(counts={}, headline={})

    def predict(
        self, trained: Manifest, said: Mapping[str, Row] | None = None, **inputs: Manifest
    ) -> Manifest:
        """Masks as a bad network's, the truth moved aside; `said` has more of a film's row."""
        said = dict(said or {})
        stage = WorkFolder(
            self.store,
            PredictConfig(trained=trained.uri, films=self.raw.uri, out=self.out),
            job="predict",
            folder="predictions",
            recipe="made up",
            inputs={"trained": trained, **(inputs or {"films": self.raw})},
            extra=said,
        )

        def work(row: Row) -> Row:
            data = decode.encode_mask(found_in(row["id"]))
            made = {"id": row["id"], "status": "ok", "mask": stage.put(f"{row['id']}.png", data)}
            return made | said.get(row["id"], {})

        for _ in stage.write_rows(self.raw.rows(self.store), FILMS, work):
            pass
        return stage.finish(counts={"films": FILMS}, headline={})

    def evaluate(self, predictions: Manifest, **options: Any) -> Manifest:
        options = {"processed": self.processed.uri, "out": self.out} | options
        return evaluate.run(EvaluateConfig(predictions=predictions.uri, **options), self.store)

    def figures(self, evaluation: Manifest) -> Any:
        return json.loads(evaluation.read_file(self.store, "metrics.json"))


@pytest.fixture(scope="module")
def films(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Films]:
    folder = tmp_path_factory.mktemp("films")
    write_montgomery(folder, FILMS)
    for path in sorted(folder.rglob("MCUCXR_*.png")):
        if int(path.stem.split("_")[1]) in SHENZHEN:
            path.rename(path.with_name(path.name.replace("MCUCXR", "CHNCXR")))
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in s3.items():
            patch.setenv(variable, value)
        patch.setattr(inference, "load_model", lambda weights, architecture: None)
        patch.setattr(inference, "probabilities", call_dark_lung)
        store, out = Store(), f"s3://lung/{folder.name}-evaluate"
        raw = download.run(DownloadConfig(source=folder.as_uri(), out=out), store)
        yield Films(store, out, raw, process(store, out, raw, {}))


def process(store: Store, out: str, raw: Manifest, moved: Mapping[str, str]) -> Manifest:
    """The films split by their numbers, but for the patients that are moved."""
    patients = {
        f"{'CHNCXR' if number in SHENZHEN else 'MCUCXR'}_{number:04d}": SPLITS[number % 5]
        for number in range(1, FILMS + 1)
    }
    lines = [f"{patient},{split}" for patient, split in {**patients, **moved}.items()]
    uri = f"{out}/split-{len(moved)}.csv"
    store.write(uri, "\n".join(["patient,split", *lines]).encode())
    config = PreprocessConfig(raw=raw.uri, out=out, size=SIZE, split_file=uri)
    return preprocess.run(config, store)


def hd95_by_distance_maps(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (one, other)]
    maps = [ndimage.distance_transform_edt(~border) for border in borders]
    directed = (maps[1][borders[0]], maps[0][borders[1]])
    return float(100 * max(np.percentile(found, 95) for found in directed) / np.hypot(*one.shape))


def test_a_films_scores_are_those_of_others_at_its_own_size(films: Films) -> None:
    made = films.evaluate(films.predict(films.train()))
    by_hand = {}
    for row in made.rows(films.store):
        truth, found = truth_of(row["id"]), found_in(row["id"])
        by_hand[row["id"]] = f1_score(truth.ravel(), found.ravel())
        assert row["dice"] == pytest.approx(by_hand[row["id"]], abs=1e-6)
        assert row["iou"] == pytest.approx(jaccard_score(truth.ravel(), found.ravel()), abs=1e-6)
        assert row["hd95"] == pytest.approx(hd95_by_distance_maps(found, truth), abs=1e-6)
    tested = [by_hand[row["id"]] for row in made.rows(films.store) if row["split"] == "test"]
    figures = films.figures(made)
    assert figures["test"]["films"] == len(tested) == films.processed.counts["test"] == 6
    assert figures["test"]["dice"]["mean"] == pytest.approx(np.mean(tested), abs=1e-6)
    assert made.headline == {
        "test_films": 6,
        "test_dice": figures["test"]["dice"]["mean"],
        "test_dice_low": figures["test"]["dice"]["low"],
        "test_dice_high": figures["test"]["dice"]["high"],
        "test_dice_p05": figures["test"]["dice"]["p05"],
        "test_iou": figures["test"]["iou"]["mean"],
        "test_hd95": figures["test"]["hd95"]["mean"],
    }
    assert made.read_file(films.store, "worst.png").startswith(b"\x89PNG")


def test_the_bytes_change_only_with_the_recipes_version(films: Films) -> None:
    """Golden output: where this fails, bump evaluate.RECIPE and put the new hash here."""
    made = films.evaluate(films.predict(films.train()))
    files = [made.read_file(films.store, name) for name in ("metrics.json", "per_film.csv")]
    golden = {"2": "668712f3fd5b8a4d953edc335f09459dba809ca8869baa0973259062f7c8d516"}
    assert hashlib.sha256(b"".join(files)).hexdigest() == golden[evaluate.RECIPE]


def test_the_same_work_writes_the_same_bytes(films: Films) -> None:
    predictions = films.predict(films.train())
    made = films.evaluate(predictions)
    again = films.evaluate(predictions, force=True, run_id="again")
    assert again.uri != made.uri
    assert again.content_hash == made.content_hash


def test_a_film_that_could_not_be_predicted_scores_nothing(films: Films) -> None:
    failed = {"MCUCXR_0002_0": {"status": "failed", "reason": "truncated"}}
    made = films.evaluate(films.predict(films.train(), failed))
    rows = {row["id"]: row for row in made.rows(films.store)}
    row = rows["MCUCXR_0002_0"]
    assert (row["dice"], row["iou"], row["hd95"]) == (0.0, 0.0, 100.0)
    assert row["reason"] == "truncated"
    assert films.figures(made)["test"]["films"] == 6


def test_predictions_of_other_films_are_refused(films: Films) -> None:
    predictions = films.predict(films.train(), films=films.processed)
    with pytest.raises(ConfigError, match="not of the same raw films"):
        films.evaluate(predictions)


# Which films test


def numbers_tested(films: Films, evaluation: Manifest) -> dict[str, set[int]]:
    """The numbers of the tested films of each source."""
    found: dict[str, set[int]] = {}
    for row in evaluation.rows(films.store):
        if row["tested"]:
            found.setdefault(row["source"], set()).add(int(row["id"].split("_")[1]))
    return found


def test_every_film_of_a_source_that_was_left_out_of_training_tests(films: Films) -> None:
    made = films.evaluate(films.predict(films.train(train_sources=["montgomery"])))
    assert numbers_tested(films, made) == {"montgomery": {2, 7, 12, 17}, "shenzhen": set(SHENZHEN)}
    figures = films.figures(made)
    assert figures["test"]["films"] == 14
    assert figures["train"]["films"] == 12 and figures["val"]["films"] == 4
    table = {row["tested_on"]: row for row in figures["cross_source"]}
    assert table.keys() == {"montgomery", "shenzhen"}
    for source, row in table.items():
        assert row["trained_on"] == ["montgomery"]
        dice = [r["dice"] for r in made.rows(films.store) if r["tested"] and r["source"] == source]
        assert row["dice"]["mean"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert figures["calibration"]["films"] == 14


@pytest.mark.parametrize("data", [{}, {"train_sources": ["montgomery", "shenzhen"]}])
def test_a_network_that_saw_all_sources_is_tested_on_the_test_split(
    films: Films, data: dict[str, Any]
) -> None:
    made = films.evaluate(films.predict(films.train(**data)))
    assert numbers_tested(films, made) == {"montgomery": {2, 7, 12, 17}, "shenzhen": {22, 27}}
    for row in films.figures(made)["cross_source"]:
        assert row["trained_on"] == ["montgomery", "shenzhen"]


def test_what_the_network_saw_counts_and_not_what_another_split_says(films: Films) -> None:
    moved = {"MCUCXR_0002": "train", "MCUCXR_0003": "test"}
    other = process(films.store, films.out, films.raw, moved)
    predictions = films.predict(films.train(processed=other, note="another split"))
    made = films.evaluate(predictions)
    assert numbers_tested(films, made)["montgomery"] == {3, 7, 12, 17}


def test_the_test_figures_can_be_over_some_sources_alone(films: Films) -> None:
    predictions = films.predict(films.train())
    made = films.evaluate(predictions, test_sources="shenzhen")
    assert numbers_tested(films, made) == {"shenzhen": {22, 27}}
    figures, every = films.figures(made), films.figures(films.evaluate(predictions))
    assert figures["test"]["films"] == 2
    assert figures["by_source"] == {"shenzhen": every["by_source"]["shenzhen"]}
    assert figures["train"] == every["train"]
    both = films.evaluate(predictions, test_sources="shenzhen,montgomery")
    assert films.figures(both) == every


@pytest.mark.parametrize("asked", ["phantoms", "montgomery,phantoms"])
def test_a_source_without_films_is_refused_and_those_there_are_named(
    films: Films, asked: str
) -> None:
    with pytest.raises(ConfigError, match=r"no films of phantoms.*montgomery, shenzhen"):
        films.evaluate(films.predict(films.train()), test_sources=asked)


# The quality score


@pytest.fixture(scope="module")
def judged(films: Films) -> Manifest:
    """Predictions whose quality is told by a rank, the odd one out flagged."""
    names = [row["id"] for row in films.raw.rows(films.store)]
    said = {
        name: {"quality": round(0.2 + number % 7 / 10, 6), "review": number % 7 < 2}
        for number, name in enumerate(names)
    }
    return films.predict(films.train(), said)


def test_the_quality_score_is_ranked_against_the_true_dice(films: Films, judged: Manifest) -> None:
    made = films.evaluate(judged)
    tested = [row for row in made.rows(films.store) if row["tested"]]
    expected = stats.spearmanr(
        [row["quality"] for row in tested], [row["dice"] for row in tested]
    ).statistic
    review = films.figures(made)["review"]
    assert review["rank_correlation"] == pytest.approx(expected, abs=1e-6)
    assert review["films"] == 6
    assert review["flagged"] == sum(row["review"] for row in tested)


def test_the_table_has_a_film_a_row_with_all_scores(films: Films, judged: Manifest) -> None:
    made = films.evaluate(judged)
    text = made.read_file(films.store, "per_film.csv").decode()
    table = {row["id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert len(table) == FILMS
    for row in made.rows(films.store):
        told = table[row["id"]]
        for name in ("dice", "iou", "hd95", "quality"):
            assert float(told[name]) == row[name]
        assert told["review"] == str(row["review"])
        assert (told["split"], told["source"]) == (row["split"], row["source"])


def test_older_predictions_without_a_quality_score_are_evaluated_too(films: Films) -> None:
    made = films.evaluate(films.predict(films.train()))
    assert films.figures(made)["review"]["films"] == 0
    (first, *_) = csv.DictReader(io.StringIO(made.read_file(films.store, "per_film.csv").decode()))
    assert first["quality"] == first["review"] == ""
