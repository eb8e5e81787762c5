"""`make bench`: alternating rounds, targets, the table, and the inputs of the measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench import __main__ as bench
from tests.bench import chain, training
from tests.bench.rounds import alternate, figure, ratio


def test_the_sides_alternate_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    seconds = alternate(2, {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")})
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_taken_within_each_round() -> None:
    ratios = ratio([2, 9, 40], [1, 3, 10], "something")
    assert ratios == {"value": 3, "min": 2, "max": 4, "unit": "x", "against": "something"}


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("preprocess_vs_naive", 15, "≥ 15 met"),
        ("preprocess_vs_naive", 14.9, "≥ 15 missed"),
        ("train_data_wait", 0.05, "≤ 0.05 met"),
        ("train_data_wait", 0.06, "≤ 0.05 missed"),
        ("peak_rss_mb", 300, ""),
    ],
)
def test_a_figure_is_compared_with_its_target(key: str, value: float, verdict: str) -> None:
    assert bench.verdict(key, figure([value], "x", "")) == verdict


def test_the_speed_of_bfloat16_has_a_target_only_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speed = figure([1.0], "x", "")
    for computes, verdict in ((True, "≥ 1.8 missed"), (False, "no bfloat16")):
        monkeypatch.setattr(bench, "computes_bfloat16", lambda device, value=computes: value)
        assert bench.verdict("train_step_vs_eager_fp32", speed) == verdict


def test_the_table_has_a_line_per_figure_and_one_per_job_for_its_memory() -> None:
    memory = figure([200.0, 300.0], "MiB", "by job") | {"by_job": {"train": [200, 300, 1.5]}}
    lines = bench.table({"cache_vs_png": figure([12.0], "x", "PNGs"), "peak_rss_mb": memory})
    assert [line.split()[0] for line in lines[1:]] == ["cache_vs_png", "peak_rss_mb", "train"]
    assert "≥ 10 met" in lines[1] and lines[1].endswith("PNGs")
    assert "200 to 300 MiB" in lines[3] and "≤ 1.15 missed" in lines[3]


def test_the_cache_and_the_pngs_hold_the_same_films(tmp_path: Path) -> None:
    training.write_films(tmp_path)
    films = training.load_cache(tmp_path)
    for number in (0, training.COUNT - 1):
        film = training.decode.decode_film((tmp_path / f"{number}.png").read_bytes())
        mask = training.decode.decode_mask((tmp_path / f"{number}-mask.png").read_bytes())
        assert np.array_equal(films.images[number], film)
        assert np.array_equal(films.masks[number], mask)


@pytest.mark.slow
def test_every_job_of_the_chain_has_its_peak_memory_measured(tmp_path: Path) -> None:
    costs = chain.costs(tmp_path, 24)
    assert list(costs) == list(chain.INPUTS)
    assert all(40 < cost.peak < 2000 for cost in costs.values()), costs
    assert costs["train"].peak > costs["download"].peak + 50, "train alone loads torch"
