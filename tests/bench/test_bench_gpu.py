"""`make bench-gpu`: its figures, on a CPU; its ten minutes; what it says without a GPU."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench import gpu, gpu_training, predict
from tests.bench.gpu import Plan

TINY = Plan(
    network="small",
    size=32,
    films=4,
    epochs=3,
    processes=(1, 2),
    film_sets={"60x80 pixels": (2, (80, 60))},
    rounds=1,
)


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
    assert gpu_training.peak_of(name) == peak


def test_the_share_of_the_peak_is_over_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    # 20 GFLOP a film, 100 films a second: 2 of the 121 TFLOP per second of an L4.
    monkeypatch.setattr(gpu_training, "gflops_of_training", lambda model, size: 20.0)
    one = gpu_training.share_of_peak("small", 32, 100.0, "NVIDIA L4", 1)
    assert one == pytest.approx(2 / 121)
    assert gpu_training.share_of_peak("small", 32, 100.0, "NVIDIA L4", 2) == pytest.approx(1 / 121)
    assert gpu_training.share_of_peak("small", 32, 100.0, "Tesla T4", 1) is None
    assert gpu_training.share_of_peak("small", 32, 100.0, None, 1) is None


@pytest.mark.slow
def test_every_part_is_measured_printed_and_written_as_soon_as_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench-gpu.json"
    written: list[tuple[int, int]] = []
    write = gpu.write_json

    def count(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        written.append((len(content.get("training", {})), len(content.get("predict", {}))))

    monkeypatch.setattr(gpu, "write_json", count)
    content = gpu.bench(TINY, time.monotonic() + 200, path)
    assert written == [(1, 0), (1, 1), (2, 1)]
    assert json.loads(path.read_text()) == json.loads(json.dumps(content))
    for processes in ("1 process", "2 processes"):
        figures = content["training"][processes]
        assert figures["epochs"] == 3 and figures["batch_size"] == 8
        assert figures["seconds"] > 0 and figures["images_per_second"] > 0
        assert 0 <= figures["data_wait"] < 1
        assert figures["gpu"] is figures["share_of_bf16_peak"] is None
    masked = content["predict"]["60x80 pixels"]
    rates = masked["films_per_second"]
    assert masked["films"] == 2
    assert masked["value"] == pytest.approx(rates["job"] / rates["network"])
    assert {"date", "gpu", "driver", "torch", "cuda", "cores", "plan"} <= content.keys()
    lines = capfd.readouterr().out.splitlines()
    assert [text.split()[:2] for text in lines[-3:]] == [
        ["training,", "1"],
        ["predict,", "60x80"],
        ["training,", "2"],
    ]


@pytest.mark.slow
def test_where_time_is_short_fewer_epochs_are_trained_and_the_seconds_of_all_estimated() -> None:
    figures = gpu_training.measure("small", size=32, films=16, epochs=1000, seconds=0.0)
    assert figures["epochs"] == gpu_training.LEAST_EPOCHS
    # 998 of the 1000 epochs are estimated by the second one.
    of_second = figures["seconds"] / 1000
    assert 0.5 * of_second < 16 / figures["images_per_second"] < of_second
    text = gpu.line(TINY._replace(epochs=1000), "training", "1 process", figures)
    assert "1000 epochs" in text and "(estimated from 2)" in text


@pytest.mark.slow
def test_a_part_that_fails_or_hangs_leaves_its_reason_and_the_others_go_on() -> None:
    lines: list[str] = []

    def on_result(kind: str, name: str, result: gpu.Result) -> None:
        lines.append(gpu.line(TINY, kind, name, result))

    plan = TINY._replace(size=33, processes=(1,))
    results = gpu.measure(plan, time.monotonic() + 200, on_result)
    assert isinstance(results["predict"]["60x80 pixels"], dict)
    (training,) = results["training"].values()
    assert isinstance(training, str)
    assert "not measured" in training and "--size 33" in training, "the job's own message"
    assert lines[0].split(maxsplit=3) == ["training,", "1", "process", training]
    late = gpu.train(TINY, 1, 1.0, 0.05)
    assert late == "not measured: not done after 0 s"


def test_a_hanging_part_does_not_take_the_time_of_those_that_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    given: list[tuple[float, float]] = []

    def hang(plan: Plan, name: object, seconds: float, most_seconds: float) -> str:
        nonlocal now
        given.append((seconds, most_seconds))
        now += most_seconds
        return "not measured"

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(gpu, "train", hang)
    monkeypatch.setattr(gpu, "mask", hang)
    gpu.measure(Plan(), 1000 + 400, lambda *_: None)
    assert given[0] == pytest.approx((70, 150))
    assert all(seconds > 20 for seconds, _ in given)
    assert now <= 1400


def test_more_processes_than_gpus_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert gpu.train(TINY, 2, 1.0, 1.0) == "not measured: 1 GPU"


def put_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """A program `nvidia-smi` that prints the lines, first on the PATH."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_cuda")
def test_without_a_gpu_it_ends_with_2_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        gpu.main({})
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("not measured: no GPU: nvidia-smi lists none")


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize(
    ("is_built", "words"),
    [(False, "has NVIDIA L4: TORCH=cuda make bench-gpu"), (True, "which lists NVIDIA L4, is too")],
)
def test_a_gpu_that_pytorch_does_not_reach_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_built: bool, words: str
) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, "NVIDIA L4, 580.95.05")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: is_built)
    assert words in gpu.missing()


def test_the_drivers_version_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_nvidia_smi(tmp_path, monkeypatch, *["NVIDIA H200, 580.95.05"] * 2)
    facts = gpu.environment()
    assert facts["driver"] == "580.95.05"
    assert facts["torch"] == torch.__version__


@pytest.mark.parametrize(("started", "seconds"), [("", 570), ("-60", 510), ("-3000", 120)])
def test_the_set_up_counts_among_the_ten_minutes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, started: str, seconds: float
) -> None:
    deadlines: list[float] = []

    def bench(plan: Plan, deadline: float, path: Path) -> dict[str, Any]:
        deadlines.append(deadline - time.monotonic())
        return {"training": {"1 process": {}}}

    monkeypatch.setattr(gpu, "missing", lambda: "")
    monkeypatch.setattr(gpu, "bench", bench)
    monkeypatch.setattr(gpu, "FIGURES", tmp_path / "artifacts" / "bench-gpu.json")
    gpu.main({"STARTED": str(time.time() + float(started))} if started else {})
    assert deadlines == [pytest.approx(seconds, abs=5)]


def test_no_training_measured_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "missing", lambda: "")
    monkeypatch.setattr(gpu, "FIGURES", tmp_path / "bench-gpu.json")
    monkeypatch.setattr(gpu, "bench", lambda *_: {"training": {"1 process": "not measured: x"}})
    with pytest.raises(SystemExit) as end:
        gpu.main({})
    assert end.value.code == 1


@pytest.mark.slow
def test_the_bare_network_probes_the_memory_once_and_not_for_each_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jobs.segmentation import inference

    probed: list[int] = []

    def films_at_once(model: Any, size: int, *, precision: str) -> int:
        probed.append(size)
        return 4

    monkeypatch.setattr(inference, "films_at_once", films_at_once)
    monkeypatch.setattr(predict, "NETWORK", "small")
    compute = predict.bare_network(torch.zeros(20, 32, 32, dtype=torch.uint8).numpy())
    compute()
    assert probed == [32]
