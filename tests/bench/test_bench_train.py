"""`make bench-train`: the films it takes apart, what it counts, and the figures it writes."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.films.split import hashed_split
from jobs.imaging import geometry
from jobs.segmentation.dataset import Films
from jobs.segmentation.fit_config import build_model
from tests.bench import compare, cost, flops, folds, gpu, launch, ours, runs, scores
from tests.bench.records import Records, fold_split, members, read_records
from tests.support.films import draw_pair, write_montgomery

SIZE, FILMS = 32, 12
PATIENTS = [f"patient-{number}" for number in range(400)]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    folder = tmp_path_factory.mktemp("bench")
    write_montgomery(folder / "films", FILMS)
    return read_records((folder / "films").as_uri(), SIZE, folder / "s3")


def test_every_film_is_read_with_its_own_mask_and_the_split_of_its_patient(
    records: Records,
) -> None:
    assert records.images.shape == records.masks.shape == (FILMS, SIZE, SIZE)
    assert len(set(records.ids)) == FILMS
    assert records.splits == [hashed_split(patient) for patient in records.patients]
    for index, name in enumerate(records.ids):
        film, left, right = draw_pair(int(name.split("_")[1]))
        assert np.array_equal(records.images[index], geometry.resize_film(film, SIZE, SIZE))
        assert np.array_equal(records.masks[index], geometry.resize_mask(left | right, SIZE, SIZE))


def test_each_patient_is_tested_in_one_fold_and_trained_on_in_none_but_the_others() -> None:
    splits = [[fold_split(patient, fold, 5) for fold in range(5)] for patient in PATIENTS]
    assert all(of_one.count("test") == 1 for of_one in splits)
    assert all(len(set(of_one) - {"test"}) == 1 for of_one in splits), "val in all others or none"
    tests = Counter(of_one.index("test") for of_one in splits)
    assert all(60 < tests[fold] < 100 for fold in range(5))
    assert 0.05 < sum("val" in of_one for of_one in splits) / len(splits) < 0.15


def test_the_films_of_a_patient_stay_together_and_each_film_is_in_one_split() -> None:
    patients = [patient for patient in PATIENTS for _ in range(2)]
    found = members(len(patients), lambda index: fold_split(patients[index], 0, 5))
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(patients)))
    sets = [{patients[index] for index in chosen} for chosen in found.values()]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(sets, 2))


def test_a_split_without_films_ends_it_with_the_remedy() -> None:
    with pytest.raises(SystemExit, match="2 films leave the split val empty: give more in SOURCE"):
        members(2, ["train", "test"].__getitem__)


def test_a_film_scores_twice_its_overlap_over_both_areas() -> None:
    masks = np.array([[[1, 1, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]], dtype=np.uint8)
    found = np.array([[[0.5, 0.9, 0.49], [0.7, 0.1, 0]], np.zeros((2, 3))], dtype=np.float32)
    assert scores.dices(found, masks) == pytest.approx([2 * 2 / (3 + 3), 1])


def test_the_figures_of_a_set_are_its_mean_median_and_5th_percentile() -> None:
    found = scores.summary([number / 100 for number in range(101)])
    assert found == pytest.approx({"dice_mean": 0.5, "dice_median": 0.5, "dice_p05": 0.05})
    assert scores.spread([3, 1, 5]) == {"mean": 3, "min": 1, "max": 5}


@pytest.mark.parametrize(("budget", "cost_of_one", "epochs"), [(10, 3, 3), (9, 3, 3), (2, 3, 1)])
def test_no_more_epochs_are_planned_than_the_budget_pays_for(
    budget: float, cost_of_one: float, epochs: int
) -> None:
    assert cost.epochs_within(budget, cost_of_one) == epochs


@pytest.fixture
def spend(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Passes CPU-seconds, of which none pass by themselves."""
    spent = 100.0

    def pass_by(seconds: float) -> None:
        nonlocal spent
        spent += seconds

    monkeypatch.setattr(cost, "cpu_seconds", lambda: spent)
    return pass_by


def test_steps_are_taken_while_some_of_the_budget_is_left(spend: Callable[[float], None]) -> None:
    clock = cost.Clock(10)
    spend(50)
    shares = []
    for share in clock.steps():
        shares.append(share)
        spend(3)
        clock.end_step(6, 0.0)
    assert shares == pytest.approx([0, 0.3, 0.6, 0.9])
    assert clock.facts()["cpu_seconds"] == 12


def test_validation_costs_budget_but_no_throughput(spend: Callable[[float], None]) -> None:
    clock = cost.Clock(10)
    for _ in clock.steps():
        spend(2)
        clock.end_step(6, 0.0)
        spend(3)
    facts = clock.facts()
    assert facts["cpu_seconds"] == 10
    assert facts["films_seen"] == 12 and facts["images_per_cpu_second"] == 3


def test_cpu_seconds_count_this_process_and_its_children() -> None:
    before = cost.cpu_seconds()
    launch.run_all({"burn": [sys.executable, "-c", "sum(range(3_000_000))"]}, 1)
    assert cost.cpu_seconds() > before


def test_ours_trains_within_a_budget_and_predicts(records: Records) -> None:
    chosen = members(len(records), records.splits.__getitem__)
    train, val = (
        Films(*map(torch.from_numpy, records.part(chosen[split]))) for split in ("train", "val")
    )
    trained = ours.train_ours(train, val, network="small", seed=0, budget=1.0)
    found = trained.predict(records.images[chosen["test"]])
    assert found.shape == (len(chosen["test"]), SIZE, SIZE) and found.dtype == np.float32
    assert 0 <= found.min() < found.max() <= 1
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


def pretend(commands: dict[str, list[str]], at_once: int, on_done: Any = None) -> None:
    """Leave what a training would: the truth, or its opposite where the seed is odd.

    In a fold it has a speck in a corner, which post-processing can take away.
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
        found = {}
        for split in ("val", "test"):
            found[split] = abs(seed % 2 - runs.read_split(folder, split)[1].astype(np.float32))
            found[split][:, 0, 0] = max(found[split][0, 0, 0], name == "ours")
        runs.write_run(folder, name, facts, found)
        if on_done:
            on_done(name)


def test_models_are_compared_on_equal_terms(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}

    def keep(commands: dict[str, list[str]], at_once: int) -> None:
        seen.update(commands)
        pretend(commands, at_once)

    monkeypatch.setattr(compare, "run_all", keep)
    result = compare.compare(records, network="small", budget=5.0, seeds=[0, 1], at_once=1)
    assert len(seen) == 6
    assert len({tuple(command[3:4] + command[6:7]) for command in seen.values()}) == 1
    model = build_model(ours.fit_config("small", size=SIZE, epochs=1, seed=0))
    gflops = str(flops.gflops_per_film(model, SIZE))
    assert {command[-1] for name, command in seen.items() if "ours" not in name} == {gflops}
    assert json.loads(json.dumps(result)) == result
    assert result.keys() == {"models", "spread", "ratios"}
    assert [run["dice_mean"] for run in result["models"]["monai"]] == [1, 0]
    assert result["ratios"]["monai"]["dice_mean"] is None, "a peer's Dice of 0 divides nothing"
    assert result["ratios"]["monai"]["images_per_second"] == {"mean": 2, "min": 2, "max": 2}
    assert result["spread"]["ours"]["images_per_cpu_second"] == {"mean": 9, "min": 6, "max": 12}
    assert "history" not in result["models"]["ours"][0]
    assert len(compare.table(result)) == 1 + 3 + 2 + 3


def test_ratios_are_of_runs_with_the_same_seed() -> None:
    def its(*rates: float) -> list[dict[str, float]]:
        return [dict.fromkeys(compare.FIGURES, rate) for rate in rates]

    found = compare.ratios({"ours": its(6, 8), "nnunet": its(3, 2), "monai": its(6, 16)})
    assert found["nnunet"]["dice_mean"] == {"mean": 3, "min": 2, "max": 4}
    assert found["monai"]["images_per_second"] == {"mean": 0.75, "min": 0.5, "max": 1}


@pytest.fixture
def many(records: Records) -> Records:
    """Films enough for five folds: those that there are, of other patients each time."""
    times = 5
    return Records(
        content="many",
        ids=[f"{name}-{time}" for time in range(times) for name in records.ids],
        patients=[f"{name}-{time}" for time in range(times) for name in records.patients],
        groups=[f"group {time % 2}" for time in range(times) for _ in records.ids],
        splits=records.splits * times,
        images=np.tile(records.images, (times, 1, 1)),
        masks=np.tile(records.masks, (times, 1, 1)),
    )


def plan(many: Records, work: Path, budget: float = 5.0) -> folds.Folds:
    return folds.Folds(many, work, folds=5, network="small", budget=budget, about={"torch": "2"})


def test_each_film_is_scored_once_over_the_folds(
    many: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "run_all", pretend)
    result = plan(many, tmp_path / "work").run(tmp_path, 1)
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
    assert "The code changed while the folds were trained" in folds.table(result)[-1]


def test_a_fold_that_is_done_is_not_done_again(
    many: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def two_of_them(commands: dict[str, list[str]], at_once: int, on_done: Any) -> None:
        asked.extend(commands)
        pretend(dict(itertools.islice(commands.items(), 2)), at_once, on_done)

    monkeypatch.setattr(folds, "run_all", two_of_them)
    monkeypatch.setattr(folds.Folds, "draw", lambda *_: None)
    counts = []
    for _ in range(3):
        result = plan(many, tmp_path / "work").run(tmp_path, 1)
        counts.append(len(result["folds"]))
    assert counts == [2, 4, 5]
    assert asked == [f"fold {n}" for n in (0, 1, 2, 3, 4, 2, 3, 4, 4)]
    monkeypatch.setattr(folds, "recipe_hash", lambda network, size: "other code")
    plan(many, tmp_path / "work").run(tmp_path, 1)
    assert asked[9:] == [f"fold {n}" for n in range(5)]
    plan(many, tmp_path / "work", budget=6.0).run(tmp_path, 1)
    assert len(asked) == 19


def test_a_training_has_one_thread_and_its_lines_bear_its_name(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = (
        "import os; print(os.environ['OMP_NUM_THREADS'], repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    )
    done: list[str] = []
    launch.run_all({"one": [sys.executable, "-c", code]}, 1, done.append)
    assert capfd.readouterr().out == "one: 1 ''\n"
    assert done == ["one"]


def test_a_training_that_fails_ends_all_with_its_name() -> None:
    def command(code: int) -> Sequence[str]:
        return [sys.executable, "-c", f"raise SystemExit({code})"]

    with pytest.raises(SystemExit, match="second ended with 3"):
        launch.run_all({"first": command(0), "second": command(3)}, 1)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", None),
        ("NVIDIA A10G", None),
    ],
)
def test_the_peak_of_a_gpu_is_found_by_the_words_of_its_name(name: str, peak: float | None) -> None:
    assert gpu.peak_of(name) == peak


def test_without_a_gpu_it_says_that_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.on_gpus("small") == "not measured: no GPU"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert gpu.in_processes("small", 2) == "not measured: 1 GPU"


def test_a_step_costs_three_times_the_forward_pass_but_the_gradient_of_the_films() -> None:
    model = build_model(ours.fit_config("small", size=SIZE, epochs=1, seed=0))
    forward = flops.gflops_per_film(model, SIZE)
    assert 2.5 * forward < flops.gflops_of_training(model, SIZE) < 3 * forward
    model.eval()
    with torch.no_grad():
        macs: list[int] = []
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(
                    lambda conv, _, out: macs.append(out.numel() * conv.weight[0].numel())
                )
        model(torch.zeros(1, 1, SIZE, SIZE))
    assert forward * 1e9 == pytest.approx(2 * sum(macs))


def test_the_gpu_figures_come_from_a_training(tmp_path: Path) -> None:
    gpu.main(tmp_path / "figures.json", "small", size=SIZE, films=4, epochs=2)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures.keys() == {"seconds", "images_per_second", "data_wait"}
    assert figures["seconds"] > 0 and figures["images_per_second"] > 0
    assert 0 <= figures["data_wait"] < 1
