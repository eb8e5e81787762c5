"""What the job train does where the model is not there yet: films to disk, epochs, checkpoints."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jobs.config import TrainConfig
from jobs.curves import draw_curves
from jobs.errors import JobError, NotFoundError
from jobs.manifest import Manifest, Row, read_manifest
from jobs.pairs import read_pairs
from jobs.progress import Progress, track
from jobs.segmentation import checkpoint, dataset, distributed, engine
from jobs.stage import Stage
from jobs.storage import Store
from jobs.svg import picture

log = logging.getLogger(__name__)

SPLITS = ("train", "val")
JSON, SVG = "application/json", "image/svg+xml"
CACHE = "LUNG_TRAIN_CACHE"  # tells a process that it is one of several, and where their films are


def fit(stage: Stage, config: TrainConfig, processed: Manifest) -> Manifest:
    """Train in this process, or in `config.processes` of them that share the films on disk."""
    if CACHE in os.environ:
        return _fit(stage, config, processed, Path(os.environ[CACHE]))
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        _fill_cache(stage.store, processed, Path(folder))
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


def _fill_cache(store: Store, processed: Manifest, folder: Path) -> None:
    """Put the films of both splits on disk as uint8 arrays, once for all processes."""
    for split in SPLITS:
        count = processed.counts[split]
        pairs = read_pairs(store, processed, split, threads=store.threads)
        films = track(pairs, count, f"load {split}")
        dataset.write_cache(folder / split, films, count, processed.config["size"])


def _fit(stage: Stage, config: TrainConfig, processed: Manifest, folder: Path) -> Manifest:
    """Train in this process, alone or as one of several; only the main one writes."""
    names = (
        "epochs",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "base_channels",
        "depth",
        "seed",
        "precision",
    )
    settings = {name: getattr(config, name) for name in names}
    fit_config = engine.FitConfig(size=processed.config["size"], **settings)
    train, val = (dataset.load_cache(folder / split) for split in SPLITS)
    distributed.init()
    try:
        keeper = _Keeper(stage, config.epochs)
        state = keeper.load()
        steps = config.epochs * len(
            dataset.global_batches(np.arange(len(train)), config.batch_size)
        )
        with Progress(steps, "train", "step") as progress:

            def on_step(epoch: int, step: int, steps: int, loss: float) -> None:
                progress.reach((epoch - 1) * steps + step, f"epoch {epoch} loss {loss:.4f}")

            engine.fit(fit_config, train, val, state=state, on_epoch=keeper.keep, on_step=on_step)
        if distributed.is_main():
            return _finish(stage, fit_config, processed, keeper.best())
        return stage.unfinished(counts={}, headline={})
    finally:
        distributed.shutdown()


class _Keeper:
    """Puts what an epoch leaves into S3, as the only writer: another one's put is refused."""

    def __init__(self, stage: Stage, epochs: int) -> None:
        self._stage = stage
        self._epochs = epochs
        self._etag = ""

    def load(self) -> bytes | None:
        """The last checkpoint, or None where training starts."""
        try:
            data, self._etag = self._stage.store.read_tagged(self._stage.uri_of("last.pt"))
        except NotFoundError:
            return None
        log.info("resuming from %s", self._stage.uri_of("last.pt"))
        return data

    def keep(self, result: engine.EpochResult) -> None:
        """best.pt first and last.pt next, so that last.pt never outruns what it speaks of."""
        store, uri_of = self._stage.store, self._stage.uri_of
        if result.best is not None:
            store.write(uri_of("best.pt"), result.best)
        owner: dict[str, Any] = {"if_etag": self._etag} if self._etag else {"if_absent": True}
        self._etag = store.write(uri_of("last.pt"), result.last, **owner)
        store.write_json(uri_of("history.json"), {"epochs": result.history})
        curves = picture(result.history, self._epochs)
        store.write(uri_of("curves.svg"), curves, content_type=SVG)
        row = result.history[-1]
        log.info(
            "epoch %d of %d: train_loss %.4f val_loss %.4f val_dice %.4f "
            "(lung fraction %.3f: all-lung loss %.4f) %.1f s, %.1f films/s",
            row["epoch"],
            self._epochs,
            row["train_loss"],
            row["val_loss"],
            row["val_dice"],
            row["lung_fraction"],
            row["all_lung_loss"],
            row["seconds"],
            row["images_per_second"],
        )

    def best(self) -> tuple[dict[str, Any], list[Row]]:
        """(the best epoch's checkpoint, the history of all epochs)."""
        store, uri_of = self._stage.store, self._stage.uri_of
        best = checkpoint.from_bytes(store.read(uri_of("best.pt")))
        last = checkpoint.from_bytes(store.read(uri_of("last.pt")))
        return best, last["history"]


def _finish(
    stage: Stage,
    config: engine.FitConfig,
    processed: Manifest,
    kept: tuple[dict[str, Any], list[Row]],
) -> Manifest:
    best, history = kept
    chosen = history[best["epoch"] - 1]
    about = {
        "network": "unet",
        "architecture": engine.build_model(config).architecture,
        "recipe": {
            "spatial_size": config.size,
            "fit": "stretch",
            "precision": config.precision,
            "threshold": 0.5,
        },
        "training": asdict(config),
        "metrics": {"epoch": chosen["epoch"], "val_dice": chosen["val_dice"]},
        "data": {
            "processed": processed.content_hash,
            **{f"{split}_films": processed.counts[split] for split in SPLITS},
            "by_source": processed.details["by_source"],
        },
    }
    stage.add_file("config.json", _json(asdict(config)), JSON)
    stage.add_file("model.safetensors", checkpoint.to_safetensors(best["model"]))
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


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
