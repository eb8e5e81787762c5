"""evaluate on a fake network: scores against reference implementations, and the test films."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats
from sklearn.metrics import f1_score, jaccard_score

from jobs import download, evaluate, preprocess
from jobs.errors import BadDataError, ConfigError
from jobs.imaging import encode
from jobs.segmentation import inference
from jobs.settings.config import (
    DownloadConfig,
    EvaluateConfig,
    PredictConfig,
    PreprocessConfig,
    TrainConfig,
)
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from tests.support.films import draw_pair, write_montgomery

pytestmark = pytest.mark.slow

SIZE, FILMS = 64, 30
SHENZHEN = range(21, 31)  # the numbers of the films with names as in the Shenzhen set
SPLITS = ("train", "val", "test", "train", "train")
SOURCES = ("montgomery", "shenzhen")
PREDICTED = {"status": "ok", "height": 160, "width": 128, "lung_fraction": 0.2}


def truth_of(film_id: str) -> NDArray[np.bool_]:
    _, left, right = draw_pair(int(film_id.split("_")[1]))
    return left | right


def predicted_mask_of(film_id: str) -> NDArray[np.bool_]:
    """The truth shifted by 0 to 6 pixels, by the film's number."""
    return np.roll(truth_of(film_id), int(film_id.split("_")[1]) % 7, axis=1)


def call_dark_lung(
    model: None, images: NDArray[np.uint8], *, precision: str
) -> NDArray[np.float32]:
    return np.where(images < 125, 0.9, 0.1).astype(np.float32)


@dataclass(frozen=True)
class Films:
    """Films of two sources in S3, split by their numbers, and the jobs on them."""

    store: Store
    out: str
    raw: Manifest
    processed: Manifest

    def train(
        self, processed: Manifest | None = None, sources: Sequence[str] = SOURCES, note: str = ""
    ) -> Manifest:
        """A fake network trained on `sources`; `note` distinguishes one from another."""
        processed = processed or self.processed
        data = {"train_sources": list(sources), "note": note}
        work_folder = WorkFolder(
            self.store,
            TrainConfig(processed=processed.uri, out=self.out),
            job="train",
            folder="trained",
            recipe="test",
            inputs={"processed": processed},
            extra=data,
        )
        if manifest := work_folder.finished():
            return manifest
        model_json = {
            "architecture": {},
            "recipe": {
                "spatial_size": SIZE,
                "threshold": 0.5,
                "fit": "stretch",
                "crop_borders": False,
                "precision": "auto",
            },
            "data": data,
        }
        work_folder.add_file("model.json", json.dumps(model_json).encode())
        work_folder.add_file("model.safetensors", b"")
        return work_folder.finish(counts={}, headline={})

    def predict(
        self,
        trained: Manifest,
        changes: Mapping[str, dict[str, Any]] | None = None,
        **inputs: Manifest,
    ) -> Manifest:
        """Shifted masks, two of seven flagged for review; `changes`: of rows, by the film's id."""
        changes = dict(changes or {})
        work_folder = WorkFolder(
            self.store,
            PredictConfig(trained=trained.uri, films=self.raw.uri, out=self.out),
            job="predict",
            folder="predictions",
            recipe="test",
            inputs={"trained": trained, **(inputs or {"films": self.raw})},
            extra=changes,
        )

        def predict(row: dict[str, Any]) -> dict[str, Any]:
            png = encode.encode_mask(predicted_mask_of(row["id"]))
            number = int(row["id"].split("_")[1]) - 1
            prediction = {
                "id": row["id"],
                **PREDICTED | {"origin": row["origin"]},
                "mask": work_folder.put(f"{row['id']}.png", png),
                "quality": round(0.2 + number % 7 / 10, 6),
                "review": number % 7 < 2,
            }
            return prediction | changes.get(row["id"], {})

        for _ in work_folder.write_rows(self.raw.rows(self.store), FILMS, predict):
            pass
        return work_folder.finish(counts={"films": FILMS}, headline={})

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
    """The films split by their numbers, except for the patients in `moved`."""
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
    return float(
        100 * max(np.percentile(distances, 95) for distances in directed) / np.hypot(*one.shape)
    )


def test_a_films_scores_are_those_of_scikit_learn_and_distance_maps_at_its_size(
    films: Films,
) -> None:
    evaluation = films.evaluate(films.predict(films.train()))
    dice = {}
    for row in evaluation.rows(films.store):
        truth, predicted = truth_of(row["id"]), predicted_mask_of(row["id"])
        dice[row["id"]] = f1_score(truth.ravel(), predicted.ravel())
        iou = jaccard_score(truth.ravel(), predicted.ravel())
        assert row["dice"] == pytest.approx(dice[row["id"]], abs=1e-6)
        assert row["iou"] == pytest.approx(iou, abs=1e-6)
        assert row["hd95"] == pytest.approx(hd95_by_distance_maps(predicted, truth), abs=1e-6)
    tested = [dice[row["id"]] for row in evaluation.rows(films.store) if row["split"] == "test"]
    figures = films.figures(evaluation)
    assert figures["test"]["films"] == len(tested) == films.processed.counts["test"] == 6
    assert figures["test"]["dice"]["mean"] == pytest.approx(np.mean(tested), abs=1e-6)
    assert evaluation.headline == {
        "test_films": 6,
        "test_dice": figures["test"]["dice"]["mean"],
        "test_dice_low": figures["test"]["dice"]["low"],
        "test_dice_high": figures["test"]["dice"]["high"],
        "test_dice_p05": figures["test"]["dice"]["p05"],
        "test_iou": figures["test"]["iou"]["mean"],
        "test_hd95": figures["test"]["hd95"]["mean"],
    }
    assert evaluation.read_file(films.store, "worst.png").startswith(b"\x89PNG")


def test_the_bytes_change_only_with_the_recipes_version(films: Films) -> None:
    """Golden output: where this fails, bump evaluate.RECIPE and put the new hash here."""
    evaluation = films.evaluate(films.predict(films.train()))
    files = [evaluation.read_file(films.store, name) for name in ("metrics.json", "per_film.csv")]
    golden = {"3": "1ed85e1ff6251a664139f2c24ddba6289eb76807e9c46aa7d8993c6e70eee098"}
    assert hashlib.sha256(b"".join(files)).hexdigest() == golden[evaluate.RECIPE]


def test_the_same_work_writes_the_same_bytes(films: Films) -> None:
    predictions = films.predict(films.train())
    evaluation = films.evaluate(predictions)
    again = films.evaluate(predictions, force=True, run_id="again")
    assert again.uri != evaluation.uri
    assert again.content_hash == evaluation.content_hash


def test_a_film_that_could_not_be_predicted_has_the_lowest_scores(films: Films) -> None:
    failed = {"MCUCXR_0002_0": {"status": "failed", "reason": "truncated"}}
    evaluation = films.evaluate(films.predict(films.train(), failed))
    rows = {row["id"]: row for row in evaluation.rows(films.store)}
    row = rows["MCUCXR_0002_0"]
    assert (row["dice"], row["iou"], row["hd95"]) == (0.0, 0.0, 100.0)
    assert row["reason"] == "truncated"
    assert films.figures(evaluation)["test"]["films"] == 6
    assert films.figures(evaluation)["review"]["films"] == 5
    line = table_of(films, evaluation)["MCUCXR_0002_0"]
    assert line["quality"] == line["review"] == ""


def test_a_mask_too_large_for_the_memory_is_bad_data_with_its_films_name(
    films: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.runtime.byte_budget.FILM_SHARE", 0)
    with pytest.raises(BadDataError, match=r"CXR_\d+_[01].png or a mask .* half of the job's mem"):
        films.evaluate(films.predict(films.train()), run_id="small", force=True)


def test_predictions_of_other_films_are_refused(films: Films) -> None:
    predictions = films.predict(films.train(), films=films.processed)
    with pytest.raises(ConfigError, match="are of different raw films"):
        films.evaluate(predictions)


# Which films test


def numbers_tested(films: Films, evaluation: Manifest) -> dict[str, set[int]]:
    """The numbers of the tested films of each source."""
    numbers: dict[str, set[int]] = {}
    for row in evaluation.rows(films.store):
        if row["tested"]:
            numbers.setdefault(row["source"], set()).add(int(row["id"].split("_")[1]))
    return numbers


def test_every_film_of_a_source_that_was_left_out_of_training_tests(films: Films) -> None:
    evaluation = films.evaluate(films.predict(films.train(sources=["montgomery"])))
    assert numbers_tested(films, evaluation) == {
        "montgomery": {2, 7, 12, 17},
        "shenzhen": set(SHENZHEN),
    }
    figures = films.figures(evaluation)
    assert figures["test"]["films"] == 14
    assert figures["train"]["films"] == 12 and figures["val"]["films"] == 4
    table = {row["tested_on"]: row for row in figures["cross_source"]}
    assert table.keys() == {"montgomery", "shenzhen"}
    for source, row in table.items():
        assert row["trained_on"] == ["montgomery"]
        dice = [
            r["dice"] for r in evaluation.rows(films.store) if r["tested"] and r["source"] == source
        ]
        assert row["dice"]["mean"] == pytest.approx(np.mean(dice), abs=1e-6)
    assert figures["calibration"]["films"] == 14


def test_a_network_that_saw_all_sources_is_tested_on_the_test_split(films: Films) -> None:
    evaluation = films.evaluate(films.predict(films.train()))
    assert numbers_tested(films, evaluation) == {"montgomery": {2, 7, 12, 17}, "shenzhen": {22, 27}}
    for row in films.figures(evaluation)["cross_source"]:
        assert row["trained_on"] == ["montgomery", "shenzhen"]


def test_the_split_that_the_network_was_trained_with_decides_which_films_test(films: Films) -> None:
    moved = {"MCUCXR_0002": "train", "MCUCXR_0003": "test"}
    other = process(films.store, films.out, films.raw, moved)
    predictions = films.predict(films.train(processed=other, note="another split"))
    evaluation = films.evaluate(predictions)
    assert numbers_tested(films, evaluation)["montgomery"] == {3, 7, 12, 17}


def test_the_test_figures_can_be_over_some_sources_alone(films: Films) -> None:
    predictions = films.predict(films.train())
    evaluation = films.evaluate(predictions, test_sources="shenzhen")
    assert numbers_tested(films, evaluation) == {"shenzhen": {22, 27}}
    figures, every = films.figures(evaluation), films.figures(films.evaluate(predictions))
    assert figures["test"]["films"] == 2
    assert figures["by_source"] == {"shenzhen": every["by_source"]["shenzhen"]}
    assert figures["train"] == every["train"]
    both = films.evaluate(predictions, test_sources="shenzhen,montgomery")
    assert films.figures(both) == every


@pytest.mark.parametrize("test_sources", ["phantoms", "montgomery,phantoms"])
def test_a_source_without_films_is_refused_and_the_sources_with_films_are_named(
    films: Films, test_sources: str
) -> None:
    with pytest.raises(ConfigError, match=r"no films of phantoms.*montgomery, shenzhen"):
        films.evaluate(films.predict(films.train()), test_sources=test_sources)


# The quality score


def table_of(films: Films, evaluation: Manifest) -> dict[str, dict[str, str]]:
    """The lines of per_film.csv by the film's id."""
    text = evaluation.read_file(films.store, "per_film.csv").decode()
    return {line["id"]: line for line in csv.DictReader(io.StringIO(text))}


def test_the_quality_score_is_ranked_against_the_true_dice(films: Films) -> None:
    evaluation = films.evaluate(films.predict(films.train()))
    tested = [row for row in evaluation.rows(films.store) if row["tested"]]
    expected = stats.spearmanr(
        [row["quality"] for row in tested], [row["dice"] for row in tested]
    ).statistic
    review = films.figures(evaluation)["review"]
    assert review["rank_correlation"] == pytest.approx(expected, abs=1e-6)
    assert review["films"] == 6
    assert review["flagged"] == sum(row["review"] for row in tested)


def test_the_table_has_a_film_a_row_with_all_scores(films: Films) -> None:
    evaluation = films.evaluate(films.predict(films.train()))
    table = table_of(films, evaluation)
    assert len(table) == FILMS
    for row in evaluation.rows(films.store):
        line = table[row["id"]]
        for name in ("dice", "iou", "hd95", "quality"):
            assert float(line[name]) == row[name]
        assert line["review"] == str(row["review"])
        assert (line["split"], line["source"]) == (row["split"], row["source"])
