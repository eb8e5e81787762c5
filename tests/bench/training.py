"""What the data path and the arithmetic are worth to a training step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from jobs.imaging import decode
from jobs.segmentation.dataset import Films, load_cache, write_cache
from jobs.segmentation.history import StepRow
from jobs.segmentation.trainer import Trainer
from tests.bench.ours import fit_config
from tests.bench.rounds import Figure, figure, ratio, take_turns
from tests.support.films import draw_pair

SIZE, BATCH, COUNT, NETWORK = 512, 8, 16, "base"


def measure(rounds: int, folder: Path) -> dict[str, Figure]:
    """cache_vs_png, train_step_vs_eager_fp32 and train_data_wait; `folder` takes the films."""
    write_films(folder)
    films = load_cache(folder)
    return {"cache_vs_png": cache_vs_png(rounds, folder, films), **steps(rounds, films)}


def write_films(folder: Path) -> None:
    """COUNT films of SIZE pixels with their masks, as a training's cache and as PNGs."""
    pairs = [
        (film, left | right)
        for film, left, right in (draw_pair(n, SIZE, SIZE) for n in range(COUNT))
    ]
    write_cache(folder, pairs, COUNT, SIZE)
    for number, (film, mask) in enumerate(pairs):
        (folder / f"{number}.png").write_bytes(decode.encode_png(film))
        (folder / f"{number}-mask.png").write_bytes(decode.encode_mask(mask))


def cache_vs_png(rounds: int, folder: Path, films: Films) -> Figure:
    """Loading one batch of films with masks, shuffled."""
    chosen = np.random.default_rng(0).permutation(COUNT)[:BATCH]

    def from_pngs() -> None:
        for number in chosen:
            decode.decode_film((folder / f"{number}.png").read_bytes())
            decode.decode_mask((folder / f"{number}-mask.png").read_bytes())

    sides = {"cache": lambda: films.batch(chosen, torch.device("cpu")), "png": from_pngs}
    seconds = take_turns(rounds, sides)
    return ratio(seconds["png"], seconds["cache"], f"decoding {BATCH} PNGs of {SIZE}² and masks")


def steps(rounds: int, films: Films) -> dict[str, Figure]:
    """Whole training steps, from batch to update, ours and in plain eager float32."""
    config = fit_config(NETWORK, size=SIZE, epochs=rounds + 1, seed=0)
    ours = Trainer(config, films, films)
    eager = Trainer(dataclasses.replace(config, precision="float32"), films, films)
    eager.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    rows: list[StepRow] = []
    seconds = take_turns(
        rounds, {"ours": lambda: rows.append(step(ours)), "eager": lambda: step(eager)}
    )
    waits = [row["data_wait"] for row in rows[-rounds:]]
    shares = [wait / whole for wait, whole in zip(waits, seconds["ours"], strict=True)]
    about = f"{NETWORK}, {BATCH} films of {SIZE}²"
    return {
        "train_step_vs_eager_fp32": ratio(
            seconds["eager"], seconds["ours"], f"the step in float32, channels first: {about}"
        ),
        "train_data_wait": figure(shares, "of the step", about),
    }


def step(trainer: Trainer) -> StepRow:
    trainer.network.train()
    return trainer.train_step(1, 1, np.arange(BATCH))
