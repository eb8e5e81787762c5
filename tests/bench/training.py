"""Measure a training step: the film cache against PNGs, and our step against eager float32."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from jobs.imaging import decode, encode
from jobs.segmentation.dataset import Films, load_cache, write_cache
from jobs.segmentation.history import StepRow
from jobs.segmentation.trainer import Trainer
from tests.bench.ours import fit_config
from tests.bench.rounds import Figure, alternate, figure, ratio
from tests.support.films import draw_pair

SIZE, BATCH, COUNT, NETWORK = 512, 8, 16, "base"


def measure(rounds: int, folder: Path) -> dict[str, Figure]:
    """cache_vs_png, train_step_vs_eager_fp32 and train_data_wait; the films lie in `folder`."""
    write_films(folder)
    films = load_cache(folder)
    return {"cache_vs_png": cache_vs_png(rounds, folder, films), **steps(rounds, films)}


def write_films(folder: Path) -> None:
    """Write COUNT films of SIZE x SIZE pixels with masks, as a training's cache and as PNGs."""
    pairs = [
        (film, left | right)
        for film, left, right in (draw_pair(n, SIZE, SIZE) for n in range(COUNT))
    ]
    write_cache(folder, pairs, COUNT, SIZE)
    for number, (film, mask) in enumerate(pairs):
        (folder / f"{number}.png").write_bytes(encode.encode_png(film))
        (folder / f"{number}-mask.png").write_bytes(encode.encode_mask(mask))


def cache_vs_png(rounds: int, folder: Path, films: Films) -> Figure:
    """The time to load a shuffled batch of films with masks: from PNGs over from the cache."""
    indices = np.random.default_rng(0).permutation(COUNT)[:BATCH]

    def from_pngs() -> None:
        for number in indices:
            decode.decode_film((folder / f"{number}.png").read_bytes())
            decode.decode_mask((folder / f"{number}-mask.png").read_bytes())

    sides = {"cache": lambda: films.batch(indices, torch.device("cpu")), "png": from_pngs}
    seconds = alternate(rounds, sides)
    return ratio(seconds["png"], seconds["cache"], f"decoding {BATCH} PNGs of {SIZE}² and masks")


def steps(rounds: int, films: Films) -> dict[str, Figure]:
    """Whole training steps, from the batch to the update: ours, and in eager float32."""
    config = fit_config(NETWORK, size=SIZE, epochs=rounds + 1, seed=0)
    ours = Trainer(config, films, films)
    eager = Trainer(dataclasses.replace(config, precision="float32"), films, films)
    eager.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    rows: list[StepRow] = []
    seconds = alternate(
        rounds, {"ours": lambda: rows.append(step(ours)), "eager": lambda: step(eager)}
    )
    waits = [row["data_wait"] for row in rows[-rounds:]]
    shares = [wait / whole for wait, whole in zip(waits, seconds["ours"], strict=True)]
    batch = f"{NETWORK}, {BATCH} films of {SIZE}²"
    return {
        "train_step_vs_eager_fp32": ratio(
            seconds["eager"], seconds["ours"], f"the step in float32, channels first: {batch}"
        ),
        "train_data_wait": figure(shares, "of the step", batch),
    }


def step(trainer: Trainer) -> StepRow:
    trainer.network.train()
    return trainer.train_step(1, 1, np.arange(BATCH))
