"""Measure a training on synthetic films: throughput, data wait, memory. `make bench-gpu` runs it.

usage: python -m tests.bench.gpu_training OUT PROCESSES NETWORK SIZE FILMS EPOCHS SECONDS

One process per GPU, or of the CPU where there is none. A trial of some steps comes first; where all
epochs would take longer than SECONDS, fewer are trained.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.segmentation import distributed, ranks
from jobs.segmentation.dataset import Films
from jobs.segmentation.device import arithmetic
from jobs.segmentation.fit_config import build_model
from jobs.segmentation.launcher import launch
from jobs.segmentation.trainer import Trainer
from tests.bench.flops import gflops_of_training
from tests.bench.ours import fit_config
from tests.bench.runs import write_json

VAL_SHARE = 0.1
# The trial: two epochs of so many steps. The first one selects kernels and does not count.
TRIAL_STEPS, TRIAL_EPOCHS = 16, 2
# The first epoch of a measurement does not count either.
LEAST_EPOCHS = 2
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


def measure(network: str, *, size: int, films: int, epochs: int, seconds: float) -> dict[str, Any]:
    """Train in this process, one of several or the only one, for about `seconds` at most.

    Returns:
        "epochs": the number trained; "seconds": of all `epochs`, estimated where fewer were
        trained; "images_per_second" and "data_wait", a share, without the first epoch; "batch_size"
        of all processes together; "precision"; "gpu": its name, None for a CPU;
        "share_of_bf16_peak": of all the GPUs used, None where the peak is not known;
        "peak_gpu_mebibytes": of this process's GPU, None for a CPU.
    """
    train = synthetic(films, size)
    val = synthetic(max(1, int(VAL_SHARE * films)), size)
    cost = seconds_of_epoch(network, train, val)
    config = fit_config(network, size=size, epochs=epochs, seed=0)
    trainer = Trainer(config, train, val)
    # Every process must train as many epochs as the slowest has time for.
    affordable = distributed.global_minimum(int(seconds / cost), trainer.device)
    trained = min(epochs, max(LEAST_EPOCHS, affordable))
    for epoch in range(1, trained + 1):
        trainer.run_epoch(epoch)
    warm = trainer.history[1:] or trainer.history
    of_epoch = float(np.median([row["seconds"] for row in warm]))
    total = sum(row["seconds"] for row in trainer.history) + (epochs - trained) * of_epoch
    rate = float(np.median([row["images_per_second"] for row in warm]))
    is_gpu = trainer.device.type == "cuda"
    gpu = torch.cuda.get_device_name() if is_gpu else None
    peak = torch.cuda.max_memory_allocated() // 2**20 if is_gpu else None
    return {
        "epochs": trained,
        "seconds": total,
        "images_per_second": rate,
        "data_wait": float(np.mean([row["data_wait"] for row in warm])),
        "batch_size": config.batch_size,
        "precision": str(arithmetic(trainer.device, config.precision)).removeprefix("torch."),
        "gpu": gpu,
        "share_of_bf16_peak": share_of_peak(network, size, rate, gpu, trainer.world_size),
        "peak_gpu_mebibytes": peak,
    }


def seconds_of_epoch(network: str, train: Films, val: Films) -> float:
    """The seconds of an epoch with its validation, estimated by a training of few steps."""
    config = fit_config(network, size=train.images.shape[-1], epochs=TRIAL_EPOCHS, seed=0)
    count = min(len(train), TRIAL_STEPS * config.batch_size)
    films = Films(train.images[:count], train.masks[:count])
    trainer = Trainer(config, films, Films(val.images[:count], val.masks[:count]))
    for epoch in range(1, TRIAL_EPOCHS + 1):
        trainer.run_epoch(epoch)
    last = trainer.history[-1]
    return last["seconds"] * max(len(train) / count, len(val) / min(count, len(val)))


def share_of_peak(network: str, size: int, rate: float, gpu: str | None, gpus: int) -> float | None:
    """The floating-point operations of the convolutions over what `gpus` can do in bfloat16."""
    peak = peak_of(gpu) if gpu else None
    if not peak:
        return None
    model = build_model(fit_config(network, size=size, epochs=1, seed=0))
    return rate * 1e9 * gflops_of_training(model, size) / (peak * gpus)


def peak_of(gpu: str) -> float | None:
    """Peak FLOP per second of a GPU in bfloat16; None for a GPU that is not in PEAKS."""
    words = set(gpu.split())
    return next((peak for name, peak in PEAKS.items() if words >= set(name)), None)


def synthetic(films: int, size: int) -> Films:
    """`films` films of noise, uint8 (N, size, size), with a darker square as the lung."""
    images = torch.randint(0, 256, (films, size, size), dtype=torch.uint8)
    masks = torch.zeros_like(images)
    masks[:, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    return Films(torch.where(masks.bool(), images // 2, images), masks)


def main(out: Path, processes: int, network: str, size: int, films: int, epochs: int) -> None:
    """Write the figures of `measure` to `out`; exits with the code of a process that failed."""
    if processes > 1 and not ranks.is_rank():
        command = [sys.executable, "-m", "tests.bench.gpu_training", *sys.argv[1:]]
        sys.exit(launch(command, processes))
    distributed.init()
    try:
        seconds = float(sys.argv[7])
        figures = measure(network, size=size, films=films, epochs=epochs, seconds=seconds)
        if distributed.is_main():
            write_json(out, figures)
    finally:
        distributed.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:7]))
