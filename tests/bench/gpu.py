"""Measure training and predict on this machine's GPUs within ten minutes: `make bench-gpu`.

Prints a line for each figure as soon as it is there, and writes artifacts/bench-gpu.json each time.
STARTED: seconds since the epoch at which the ten minutes began, by default now.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import torch

from tests.bench import predict
from tests.bench.launch import ROOT
from tests.bench.runs import write_json

FIGURES = ROOT / "artifacts" / "bench-gpu.json"
# Seconds of the whole command; and the least for measuring, where the set-up took most of them.
LIMIT, LEAST = 570.0, 120.0
# Of a part's share of the time: what it may plan to measure for, beside its own set-up, and what
# ends it, so that a part which hangs leaves time for those that follow.
MEASURING, OVERTIME = 0.7, 1.5
SECONDS_FOR_DRIVER = 20
# {name: (number of films, their (height, width))}
FILM_SETS: predict.FilmSets = {
    "640x768 pixels": (1024, (768, 640)),
    "4020x4892 pixels": (64, (4892, 4020)),
}
# A part's figures, or the reason why there are none.
Result: TypeAlias = dict[str, Any] | str
Part: TypeAlias = Callable[[float, float], Result]


class Plan(NamedTuple):
    """What is measured. 563 films are 0.8 of the 704 with a mask in Kaggle's two sets.

    processes: of the trainings, one GPU each. film_sets: as `predict.FILM_SETS`; on a GPU a batch
    has at most the films of a part of the set, 1/64 of it.
    """

    network: str = predict.NETWORK
    size: int = predict.SIZE
    films: int = 563
    epochs: int = 10
    processes: tuple[int, ...] = (1, 2)
    film_sets: predict.FilmSets = FILM_SETS
    rounds: int = 3


def measure(
    plan: Plan, deadline: float, on_result: Callable[[str, str, Result], None]
) -> dict[str, dict[str, Result]]:
    """{"training": {processes: figures}, "predict": {film set: figures}}.

    Args:
        deadline: of `time.monotonic`; each part gets an equal share of what is left until then.
        on_result: called with (kind, name, result) after each part.
    """
    parts: list[tuple[str, str, Part]] = []
    first, *more = [
        ("training", f"{count} process{'es' * (count > 1)}", partial(train, plan, count))
        for count in plan.processes
    ]
    # The trainings of several processes last: they alone can hang, in the GPUs' communication.
    parts += [first, *(("predict", key, partial(mask, plan, key)) for key in plan.film_sets), *more]
    results: dict[str, dict[str, Result]] = {"training": {}, "predict": {}}
    for number, (kind, name, part) in enumerate(parts):
        left = max(1.0, deadline - time.monotonic())
        share = left / (len(parts) - number)
        results[kind][name] = part(MEASURING * share, min(left, OVERTIME * share))
        on_result(kind, name, results[kind][name])
    return results


def train(plan: Plan, processes: int, seconds: float, most_seconds: float) -> Result:
    """The figures of `gpu_training.measure`, with one process per GPU."""
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        return f"not measured: {gpus} GPU"
    with _scratch() as work, tempfile.TemporaryFile("w+") as messages:
        settings = map(str, (processes, plan.network, plan.size, plan.films, plan.epochs, seconds))
        out = Path(work, "figures.json")
        command = [sys.executable, "-m", "tests.bench.gpu_training", str(out), *settings]
        try:
            subprocess.run(command, cwd=ROOT, stderr=messages, timeout=most_seconds, check=True)
        except subprocess.SubprocessError as error:
            return _reason(error, messages)
        figures: dict[str, Any] = json.loads(out.read_text())
    return figures


def mask(plan: Plan, key: str, seconds: float, most_seconds: float) -> Result:
    """The figures of `predict.measure` for one set of films."""
    films = plan.film_sets[key]
    with _scratch() as work, tempfile.TemporaryFile("w+") as messages:
        try:
            figures = predict.measure(
                plan.rounds,
                Path(work),
                {key: films},
                seconds=seconds,
                most_seconds=most_seconds,
                stderr=messages,
            )
        except subprocess.SubprocessError as error:
            return _reason(error, messages)
    return figures[key] | {"films": films[0]}


def _scratch() -> tempfile.TemporaryDirectory[str]:
    # The S3 server of a part that was ended may still write to it.
    return tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)


def _reason(error: subprocess.SubprocessError, messages: IO[str]) -> str:
    """Why a part has no figures, with the last line of its messages."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"not measured: not done after {error.timeout:.0f} s"
    messages.seek(0)
    last = [text.strip() for text in messages if text.strip()][-1:]
    code = error.returncode if isinstance(error, subprocess.CalledProcessError) else error
    return ": ".join([f"not measured: a process ended with {code}", *last])


def missing() -> str:
    """What keeps PyTorch from a GPU, with the remedy; empty where it reaches one."""
    if torch.cuda.is_available():
        return ""
    gpus = ", ".join(line.split(", ")[0] for line in driver_facts())
    if not gpus:
        return "no GPU: nvidia-smi lists none on this machine (docs/gpu-node.md)"
    if not torch.backends.cuda.is_built():
        return (
            f"no GPU for PyTorch {torch.__version__}: .venv has its build for the CPU, the machine "
            f"has {gpus}: TORCH=cuda make bench-gpu"
        )
    return (
        f"no GPU for PyTorch {torch.__version__}, built for CUDA {torch.version.cuda}: the driver, "
        f"which lists {gpus}, is too old for it, or CUDA_VISIBLE_DEVICES hides them "
        "(docs/gpu-node.md)"
    )


def driver_facts() -> list[str]:
    """A line "name, driver's version" for each GPU that the driver has; none without a driver."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_FOR_DRIVER, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return answer.stdout.splitlines()


def environment() -> dict[str, Any]:
    """The date, versions and hardware that the figures depend on."""
    has_gpu = torch.cuda.is_available()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        "gpus": torch.cuda.device_count(),
        "driver": next((line.rpartition(", ")[2] for line in driver_facts()), None),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cores": len(os.sched_getaffinity(0)),
    }


def line(plan: Plan, kind: str, name: str, result: Result) -> str:
    """A part's line of the table."""
    label = f"  {kind}, {name}"
    if isinstance(result, str):
        return f"{label:28}{result}"
    if kind == "predict":
        rates = result["films_per_second"]
        return (
            f"{label:28}{result['films']} films, the job {rates['job']:.1f} films/s, the network "
            f"alone {rates['network']:.1f}, ratio {result['value']:.2f}"
        )
    share = result["share_of_bf16_peak"]
    figures = [
        f"{plan.epochs} epochs {result['seconds']:.1f} s",
        f"{result['images_per_second']:.1f} images/s",
        "unknown share of the bf16 peak" if share is None else f"{share:.2%} of the bf16 peak",
        f"data wait {result['data_wait']:.1%}",
        f"{result['precision']}",
    ]
    if result["epochs"] < plan.epochs:
        figures[0] += f" (estimated from {result['epochs']})"
    if memory := result["peak_gpu_mebibytes"]:
        figures.append(f"{memory} MiB")
    return f"{label:28}{', '.join(figures)}"


def bench(plan: Plan, deadline: float, path: Path) -> dict[str, Any]:
    """Measure, print a line for each figure, and keep `path` up to date; the content of `path`."""
    content: dict[str, Any] = {**environment(), "plan": plan._asdict()}
    where = (
        f"{content['gpus']} x {content['gpu']}, driver {content['driver']}"
        if content["gpu"]
        else "the CPU"
    )
    print(f"{where}; PyTorch {content['torch']}; {content['cores']} cores; {content['date']}")
    print(
        f"{plan.network} at {plan.size}x{plan.size} pixels; training on {plan.films} films; "
        "predict from S3 to S3",
        flush=True,
    )

    def on_result(kind: str, name: str, result: Result) -> None:
        print(line(plan, kind, name, result), flush=True)
        content.setdefault(kind, {})[name] = result
        write_json(path, content)

    measure(plan, deadline, on_result)
    return content


def main(environ: Mapping[str, str] = os.environ) -> None:
    if reason := missing():
        print(f"not measured: {reason}", file=sys.stderr)
        sys.exit(2)
    # The set-up of the environment counts: a GPU is often there for ten minutes.
    spent = time.time() - float(environ.get("STARTED") or time.time())
    FIGURES.parent.mkdir(exist_ok=True)
    content = bench(Plan(), time.monotonic() + max(LEAST, LIMIT - spent), FIGURES)
    print(f"\nAll figures: {FIGURES}", flush=True)
    if not any(isinstance(result, dict) for result in content["training"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
