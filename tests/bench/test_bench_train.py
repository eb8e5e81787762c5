"""`make bench-train`: splits and folds, budgets, scores, and the figures that it writes."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.films.split import hashed_split
from jobs.imaging import geometry
from jobs.segmentation.dataset import Films
from jobs.segmentation.fit_config import build_model
from tests.bench import compare, flops, folds, launch, ours, runs, scores
from tests.bench.records import Records, fold_split, members, read_records
from tests.support.films import draw_pair, write_montgomery

pytestmark = pytest.mark.slow

SIZE, FILMS = 32, 12
PATIENTS = [f"patient-{number}" for number in range(400)]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    folder = tmp_path_factory.mktemp("bench")
    write_montgomery(folder / "films", FILMS)
    return read_records((folder / "films").as_uri(), SIZE, folder / "s3")


def test_every_film_is_read_with_its_mask_and_the_split_of_its_patient(
    records: Records,
) -> None:
    assert records.images.shape == records.masks.shape == (FILMS, SIZE, SIZE)
    assert len(set(records.ids)) == FILMS
    assert records.splits == [hashed_split(patient) for patient in records.patients]
    for index, name in enumerate(records.ids):
        film, left, right = draw_pair(int(name.split("_")[1]))
        assert np.array_equal(records.images[index], geometry.resize_film(film, SIZE, SIZE))
        assert np.array_equal(records.masks[index], geometry.resize_mask(left | right, SIZE, SIZE))


def test_each_patient_is_tested_in_one_fold_and_trained_on_only_in_the_others() -> None:
    patients = [[fold_split(patient, fold, 5) for fold in range(5)] for patient in PATIENTS]
    assert all(splits.count("test") == 1 for splits in patients)
    assert all(len(set(splits) - {"test"}) == 1 for splits in patients), "val in all others or none"
    tests = Counter(splits.index("test") for splits in patients)
    assert all(60 < tests[fold] < 100 for fold in range(5))
    assert 0.05 < sum("val" in splits for splits in patients) / len(patients) < 0.15


def test_the_films_of_a_patient_stay_together_and_each_film_is_in_one_split() -> None:
    patients = [patient for patient in PATIENTS for _ in range(2)]
    by_split = members(len(patients), lambda index: fold_split(patients[index], 0, 5))
    assert sorted(np.concatenate(list(by_split.values())).tolist()) == list(range(len(patients)))
    sets = [{patients[index] for index in indices} for indices in by_split.values()]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(sets, 2))


def test_an_empty_split_ends_the_run_with_the_remedy() -> None:
    with pytest.raises(SystemExit, match="2 films leave the split val empty: give more in SOURCE"):
        members(2, ["train", "test"].__getitem__)


def test_a_film_scores_twice_its_overlap_over_both_areas() -> None:
    masks = np.array([[[1, 1, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]], dtype=np.uint8)
    film = [[0.5, 0.9, 0.49], [0.7, 0.1, 0]]
    probabilities = np.array([film, np.zeros((2, 3))], dtype=np.float32)
    assert scores.dices(probabilities, masks) == pytest.approx([2 * 2 / (3 + 3), 1])


def test_the_summary_of_a_set_is_its_mean_median_and_5th_percentile() -> None:
    summary = scores.summary([number / 100 for number in range(101)])
    assert summary == pytest.approx({"dice_mean": 0.5, "dice_median": 0.5, "dice_p05": 0.05})
    assert scores.spread([3, 1, 5]) == {"mean": 3, "min": 1, "max": 5}


def test_ours_trains_within_a_budget_and_predicts(records: Records) -> None:
    indices = members(len(records), records.splits.__getitem__)
    train, val = (
        Films(*map(torch.from_numpy, records.part(indices[split]))) for split in ("train", "val")
    )
    trained = ours.train_ours(train, val, network="small", seed=0, budget=1.0)
    probabilities = trained.predict(records.images[indices["test"]])
    assert probabilities.shape == (len(indices["test"]), SIZE, SIZE)
    assert probabilities.dtype == np.float32
    assert 0 <= probabilities.min() < probabilities.max() <= 1
    facts = trained.facts
    assert facts["epochs"] == len(facts["history"]) >= 1
    assert facts["parameters"] > 100_000
    assert facts["images_per_cpu_second"] > 0 and facts["films_seen"] > 0
    assert facts["gflops_per_film"] > 0


def test_ours_stops_before_an_epoch_that_would_pass_the_budget(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Films(torch.from_numpy(records.images), torch.from_numpy(records.masks))
    monkeypatch.setattr(ours, "epoch_cost", lambda *_: 0.001)
    trained = ours.train_ours(train, train, network="small", seed=0, budget=1.0)
    facts = trained.facts
    assert 2 <= facts["epochs"] == len(facts["history"]) < facts["planned_epochs"]


RUN = {"parameters": 7, "gflops_per_film": 1.5, "peak_mebibytes": 9.0, "cpu_seconds": 60.0}


def fake_run_all(commands: dict[str, list[str]], at_once: int, on_done: Any = None) -> None:
    """Write the files of a training: the labelled masks, or their inverse where the seed is odd.

    In a fold a corner pixel is lung too, which post-processing can remove.
    """
    for command in commands.values():
        folder, name, seed = Path(command[3]), command[4], int(command[5])
        rate = {"ours": 6.0, "nnunet": 2.0, "monai": 3.0}[name.split("-")[0]] * (seed + 1)
        facts = RUN | {
            "images_per_cpu_second": rate,
            "images_per_second": rate / 2,
            "films_seen": 10,
            "epochs": 2,
            "process_cpu_seconds": 61.0,
            "trained_by": ours.recipe_hash("small", SIZE),
            "history": [
                {"epoch": epoch, "train_loss": 0.2, "val_loss": 0.3, "val_dice": 0.8}
                | {"all_lung_loss": 0.5}
                for epoch in (1, 2)
            ],
        }
        by_split = {}
        for split in ("val", "test"):
            masks = runs.read_split(folder, split)[1].astype(np.float32)
            probabilities = abs(seed % 2 - masks)
            probabilities[:, 0, 0] = max(probabilities[0, 0, 0], name == "ours")
            by_split[split] = probabilities
        runs.write_run(folder, name, facts, by_split)
        if on_done:
            on_done(name)


def test_models_are_compared_on_equal_terms(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, list[str]] = {}

    def record_commands(commands: dict[str, list[str]], at_once: int) -> None:
        started.update(commands)
        fake_run_all(commands, at_once)

    monkeypatch.setattr(compare, "run_all", record_commands)
    result = compare.compare(records, network="small", budget=5.0, seeds=[0, 1], at_once=1)
    assert len(started) == 6
    # Every command has the same folder of films and the same budget.
    assert len({(command[3], command[6]) for command in started.values()}) == 1
    model = build_model(ours.fit_config("small", size=SIZE, epochs=1, seed=0))
    gflops = str(flops.gflops_per_film(model, SIZE))
    assert {command[-1] for name, command in started.items() if "ours" not in name} == {gflops}
    assert json.loads(json.dumps(result)) == result
    assert result.keys() == {"models", "spread", "ratios"}
    assert [run["dice_mean"] for run in result["models"]["monai"]] == [1, 0]
    assert result["ratios"]["monai"]["dice_mean"] is None, "one of the peer's Dice is 0"
    assert result["ratios"]["monai"]["images_per_second"] == {"mean": 2, "min": 2, "max": 2}
    assert result["spread"]["ours"]["images_per_cpu_second"] == {"mean": 9, "min": 6, "max": 12}
    assert "history" not in result["models"]["ours"][0]
    assert len(compare.table(result)) == 1 + 3 + 2 + 3


def test_ratios_are_of_runs_with_the_same_seed() -> None:
    def figures(*values: float) -> list[dict[str, float]]:
        return [dict.fromkeys(compare.FIGURES, value) for value in values]

    runs = {"ours": figures(6, 8), "nnunet": figures(3, 2), "monai": figures(6, 16)}
    ratios = compare.ratios(runs)
    assert ratios["nnunet"]["dice_mean"] == {"mean": 3, "min": 2, "max": 4}
    assert ratios["monai"]["images_per_second"] == {"mean": 0.75, "min": 0.5, "max": 1}


@pytest.fixture
def many(records: Records) -> Records:
    """Enough films for five folds: five copies of `records`, each of other patients."""
    copies = 5
    return Records(
        content="many",
        ids=[f"{name}-{copy}" for copy in range(copies) for name in records.ids],
        patients=[f"{name}-{copy}" for copy in range(copies) for name in records.patients],
        groups=[f"group {copy % 2}" for copy in range(copies) for _ in records.ids],
        splits=records.splits * copies,
        images=np.tile(records.images, (copies, 1, 1)),
        masks=np.tile(records.masks, (copies, 1, 1)),
    )


def five_folds(many: Records, work: Path, budget: float = 5.0) -> folds.Folds:
    return folds.Folds(
        many, work, folds=5, network="small", budget=budget, environment={"torch": "2"}
    )


def test_each_film_is_scored_once_over_the_folds(
    many: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "run_all", fake_run_all)
    result = five_folds(many, tmp_path / "work").run(tmp_path, 1)
    assert sorted(row["id"] for row in result["films"]) == sorted(many.ids)
    assert result["all"]["dice_mean"] == result["by_group"]["group 1"]["dice_p05"] == 1
    assert 0.9 < result["all"]["before_postprocessing"]["dice_mean"] < 1
    written = json.loads((tmp_path / "bench-folds.json").read_text())
    assert written == result
    assert written.keys() == {"torch", "folds", "all", "by_group", "films"}
    assert (tmp_path / "bench-folds-worst.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.glob("bench-folds-curves-*.png"))) == 5
    assert folds.table(result)[-2].split()[-4:] == ["60", *["1.0000"] * 3]
    result["folds"][2]["trained_by"] = "other code"
    assert "The code changed between the folds" in folds.table(result)[-1]


def test_a_finished_fold_is_not_trained_again(
    many: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[str] = []

    def run_two(commands: dict[str, list[str]], at_once: int, on_done: Any) -> None:
        requested.extend(commands)
        fake_run_all(dict(itertools.islice(commands.items(), 2)), at_once, on_done)

    monkeypatch.setattr(folds, "run_all", run_two)
    monkeypatch.setattr(folds.Folds, "draw", lambda *_: None)
    counts = []
    for _ in range(3):
        result = five_folds(many, tmp_path / "work").run(tmp_path, 1)
        counts.append(len(result["folds"]))
    assert counts == [2, 4, 5]
    assert requested == [f"fold {n}" for n in (0, 1, 2, 3, 4, 2, 3, 4, 4)]
    monkeypatch.setattr(folds, "recipe_hash", lambda network, size: "other code")
    five_folds(many, tmp_path / "work").run(tmp_path, 1)
    assert requested[9:] == [f"fold {n}" for n in range(5)]
    five_folds(many, tmp_path / "work", budget=6.0).run(tmp_path, 1)
    assert len(requested) == 19


def test_a_training_has_one_thread_and_its_lines_are_prefixed_with_its_name(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = (
        "import os; print(os.environ['OMP_NUM_THREADS'], repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    )
    done: list[str] = []
    launch.run_all({"one": [sys.executable, "-c", code]}, 1, done.append)
    assert capfd.readouterr().out == "one: 1 ''\n"
    assert done == ["one"]


def test_a_training_that_fails_ends_the_run_with_its_name() -> None:
    def command(code: int) -> Sequence[str]:
        return [sys.executable, "-c", f"raise SystemExit({code})"]

    with pytest.raises(SystemExit, match="second ended with 3"):
        launch.run_all({"first": command(0), "second": command(3)}, 1)
