"""What the job train does where the model is not there yet: films to disk, epochs, checkpoints."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jobs.errors import JobError
from jobs.films import postprocess
from jobs.films.training_pairs import chosen_sources, read_pairs
from jobs.models.epoch_writer import Keeper
from jobs.reports.curves import draw_curves
from jobs.reports.svg import picture
from jobs.runtime.profile import spent, waiting
from jobs.runtime.progress import Progress, track
from jobs.runtime.save_on_signal import saving
from jobs.segmentation import checkpoint, dataset, distributed, inference
from jobs.segmentation.fit_config import NETWORKS, FitConfig, build_model
from jobs.segmentation.trainer import EpochResult, Trainer
from jobs.settings.config import TrainConfig
from jobs.storage.manifest import Manifest, Row, read_manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

log = logging.getLogger(__name__)

SPLITS = ("train", "val")
SETTINGS = ("epochs", "batch_size", "learning_rate", "weight_decay", "seed", "precision")
PLACING = ("fit", "crop_borders")  # an earlier version's films were all stretched, and whole
MOST_TO_CHOOSE_ON = 500  # validation films, whose probabilities are held in memory
SECONDS_FOR_MAIN = 2.5  # less than the launcher leaves before it kills
JSON, SVG = "application/json", "image/svg+xml"
CACHE = "LUNG_TRAIN_CACHE"  # tells a process that it is one of several, and where their films are


def fit(stage: WorkFolder, config: TrainConfig, processed: Manifest) -> Manifest:
    """Train in this process, or in `config.processes` of them that share the films on disk."""
    if CACHE in os.environ:
        return _fit(stage, config, processed, Path(os.environ[CACHE]))
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        _fill_cache(stage.store, config, processed, Path(folder))
        if config.processes == 1:
            return _fit(stage, config, processed, Path(folder))
        _launch(config, folder)
    return read_manifest(stage.store, stage.uri, "train")


def _launch(config: TrainConfig, folder: str) -> None:
    """Run this job again in each of N processes; JobError with the first failing one's code."""
    os.environ[CACHE] = folder
    try:
        command = [sys.executable, "-m", "jobs", "train", *config.arguments()]
        code = distributed.launch(command, config.processes)
    finally:
        del os.environ[CACHE]
    if code:
        error = JobError(f"a training process ended with {code}: its own message stands above")
        error.exit_code = code
        raise error


def _fill_cache(store: Store, config: TrainConfig, processed: Manifest, folder: Path) -> None:
    """Put the films of both splits on disk as uint8 arrays, once for all processes."""
    sources = chosen_sources(processed, "--train-sources", config.train_sources)
    for split in SPLITS:
        count = _films_of(processed, split, sources)
        pairs = read_pairs(store, processed, split, sources=sources, threads=store.threads)
        films = track(pairs, count, f"load {split}")
        dataset.write_cache(folder / split, films, count, processed.config["size"])


def _films_of(processed: Manifest, split: str, sources: Sequence[str]) -> int:
    by_source = processed.details["by_source"]
    return sum(by_source.get(f"{source}/{split}", 0) for source in sources)


def _fit(stage: WorkFolder, config: TrainConfig, processed: Manifest, folder: Path) -> Manifest:
    """Train in this process, alone or as one of several; only the main one writes."""
    fit_config = FitConfig(
        size=processed.config["size"],
        **NETWORKS[config.network],
        **{name: getattr(config, name) for name in SETTINGS},
    )
    train, val = (dataset.load_cache(folder / split) for split in SPLITS)
    distributed.init()
    try:
        keeper = Keeper(stage, config.epochs)
        trainer = Trainer(fit_config, train, val, keeper.load())

        def save() -> None:
            """What was trained since the epoch's start, once the task is to stop."""
            if distributed.is_main():
                keeper.save(trainer.state())
            elif trainer.device.type == "cuda":
                # The main one's GPU still waits for this one's part of sums before it can save.
                time.sleep(SECONDS_FOR_MAIN)
            if CACHE not in os.environ:
                shutil.rmtree(folder, ignore_errors=True)

        total = config.epochs * trainer.steps_per_epoch
        with saving(save), Progress(total, "train", "step") as progress:
            lap = _Lap()

            def on_step(epoch: int, step: int, steps: int, loss: float) -> None:
                waited = trainer.steps[-1]["data_wait"]
                spent("data", waited)
                spent("compute", lap.seconds() - waited)
                progress.reach((epoch - 1) * steps + step, f"epoch {epoch} loss {loss:.4f}")

            def on_epoch(result: EpochResult) -> None:
                spent("validate", lap.seconds())
                with waiting():
                    keeper.keep(result)
                lap.seconds()

            trainer.run(on_epoch, on_step)
            with waiting():
                keeper.wait()
        if distributed.is_main():
            return _finish(stage, config, fit_config, processed, val, keeper.best())
        return stage.unfinished(counts={}, headline={})
    finally:
        distributed.shutdown()


class _Lap:
    """Seconds since the last time that it was asked."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def seconds(self) -> float:
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _finish(
    stage: WorkFolder,
    config: TrainConfig,
    fit_config: FitConfig,
    processed: Manifest,
    val: dataset.Films,
    kept: tuple[dict[str, Any], list[Row]],
) -> Manifest:
    best, history = kept
    chosen = history[best["epoch"] - 1]
    weights = checkpoint.to_safetensors(best["model"])
    architecture = build_model(fit_config).architecture
    sources = chosen_sources(processed, "--train-sources", config.train_sources)
    about = {
        "network": "unet",
        "architecture": architecture,
        "recipe": {
            "spatial_size": fit_config.size,
            **{name: processed.config[name] for name in PLACING if name in processed.config},
            "precision": fit_config.precision,
            **_postprocessing(weights, architecture, fit_config.precision, val),
        },
        "training": asdict(fit_config),
        "metrics": {"epoch": chosen["epoch"], "val_dice": chosen["val_dice"]},
        "data": {
            "processed": processed.content_hash,
            "train_sources": sources,
            **{f"{split}_films": _films_of(processed, split, sources) for split in SPLITS},
            "by_source": processed.details["by_source"],
        },
    }
    stage.add_file("config.json", _json(asdict(fit_config)), JSON)
    stage.add_file("model.safetensors", weights)
    stage.add_file("model.json", _json(about), JSON)
    stage.add_file("history.json", _json({"epochs": history}), JSON, has_timings=True)
    stage.add_table("history.csv", list(history[0]), history, has_timings=True)
    stage.add_file("curves.svg", picture(history, len(history)), SVG, has_timings=True)
    stage.add_file("curves.png", draw_curves(history), "image/png", has_timings=True)
    last = history[-1]
    headline = {
        "epochs": len(history),
        **{name: round(last[name], 6) for name in ("train_loss", "val_loss", "val_dice")},
        "best_epoch": int(chosen["epoch"]),
        "best_val_dice": round(chosen["val_dice"], 6),
        "learning_rate": last["learning_rate"],
        "epoch_seconds": round(last["seconds"], 2),
    }
    return stage.finish(counts={"epochs": len(history)}, headline=headline)


def _postprocessing(
    weights: bytes, architecture: dict[str, int], precision: str, val: dataset.Films
) -> dict[str, Any]:
    """How probabilities become a mask, as does best on the validation films."""
    model = inference.load_model(weights, architecture)
    count = min(len(val), MOST_TO_CHOOSE_ON)
    some = np.linspace(0, len(val) - 1, count).round().astype(np.int64)
    found = inference.probabilities_of_all(model, val.images[some].numpy(), precision=precision)
    chosen = postprocess.choose(found, val.masks[some].numpy() > 0)
    log.info("masks from probabilities: %s", chosen)
    return chosen


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
