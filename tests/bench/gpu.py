"""Measure training on GPUs with synthetic films: throughput, share of the peak, data wait.

usage: python -m tests.bench.gpu OUT NETWORK SIZE FILMS EPOCHS      (one rank of the measurement)
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.segmentation import distributed
from jobs.segmentation.dataset import Films
from jobs.segmentation.fit_config import build_model
from jobs.segmentation.history import EpochRow
from jobs.segmentation.launcher import launch
from jobs.segmentation.trainer import Trainer
from tests.bench.flops import gflops_of_training
from tests.bench.ours import fit_config
from tests.bench.runs import write_json

# 563 films are 0.8 of the 704 with a mask in Kaggle's two sets.
SIZE, FILMS, EPOCHS = 512, 563, 10
VAL_SHARE = 0.1
# Peak FLOP per second in dense bfloat16 on tensor cores, from NVIDIA's data sheets, by words of the
# GPU's name. The first entry whose words are all in the name applies.
PEAKS = {
    ("H100", "PCIe"): 756e12,
    ("H100",): 989e12,
    ("H200",): 989e12,
    ("A100",): 312e12,
    ("L40S",): 362e12,
    ("L4",): 121e12,
}


def on_gpus(network: str) -> dict[str, Any] | str:
    """The figures with 1 and with 2 GPUs, or the reason why nothing was measured."""
    if not torch.cuda.is_available():
        return "not measured: no GPU"
    return {f"{count} processes": in_processes(network, count) for count in (1, 2)}


def in_processes(network: str, processes: int) -> dict[str, Any] | str:
    """The figures of a training with one process per GPU, or the reason why there are none."""
    gpus = torch.cuda.device_count()
    if gpus < processes:
        return f"not measured: {gpus} GPU"
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        out = Path(work, "figures.json")
        settings = [str(out), network, str(SIZE), str(FILMS), str(EPOCHS)]
        command = [sys.executable, "-m", "tests.bench.gpu", *settings]
        if code := launch(command, processes):
            return f"not measured: a process ended with {code}"
        figures: dict[str, Any] = json.loads(out.read_text())
    name = torch.cuda.get_device_name()
    model = build_model(fit_config(network, size=SIZE, epochs=EPOCHS, seed=0))
    flops = figures["images_per_second"] * 1e9 * gflops_of_training(model, SIZE)
    peak = peak_of(name)
    share = flops / (peak * processes) if peak else None
    return {"gpu": name, **figures, "share_of_bf16_peak": share}


def peak_of(gpu: str) -> float | None:
    """Peak FLOP per second of a GPU in bfloat16; None for a GPU that is not in PEAKS."""
    words = set(gpu.split())
    return next((peak for name, peak in PEAKS.items() if words >= set(name)), None)


def measure(network: str, *, size: int, films: int, epochs: int) -> dict[str, float]:
    """Train on synthetic films in this rank; the rates leave out the first epoch as warm-up."""
    config = fit_config(network, size=size, epochs=epochs, seed=0)
    history: list[EpochRow] = []
    val = max(1, int(VAL_SHARE * films))
    for result in Trainer(config, synthetic(films, size), synthetic(val, size)).epochs():
        history = result.history
    # Only rank 0 receives the epochs.
    if not history:
        return {}
    warm = history[1:] or history
    return {
        "seconds": sum(row["seconds"] for row in history),
        "images_per_second": float(np.median([row["images_per_second"] for row in warm])),
        "data_wait": float(np.mean([row["data_wait"] for row in warm])),
    }


def synthetic(films: int, size: int) -> Films:
    """`films` films of noise, uint8 (N, size, size), with a darker square as the lung."""
    images = torch.randint(0, 256, (films, size, size), dtype=torch.uint8)
    masks = torch.zeros_like(images)
    masks[:, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    return Films(torch.where(masks.bool(), images // 2, images), masks)


def main(out: Path, network: str, size: int, films: int, epochs: int) -> None:
    distributed.init()
    try:
        figures = measure(network, size=size, films=films, epochs=epochs)
        if distributed.is_main():
            write_json(out, figures)
    finally:
        distributed.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))
