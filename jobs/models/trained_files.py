"""The files of a finished training: weights, model.json, histories and curves."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jobs.films import postprocess
from jobs.films.training_pairs import count_films
from jobs.reports.curves import draw_curves
from jobs.reports.svg import picture
from jobs.runtime.progress import Progress
from jobs.segmentation import checkpoint, inference
from jobs.segmentation.dataset import Films
from jobs.segmentation.fit_config import FitConfig, build_model
from jobs.segmentation.history import EpochRow
from jobs.storage.manifest import Manifest
from jobs.storage.work_folder import WorkFolder

log = logging.getLogger(__name__)

# Validation films that the mask recipe is chosen on: their probabilities are held in memory.
MOST_TO_CHOOSE_ON = 500
NewStep = Callable[[str, int, str], Progress]
JSON, SVG, PNG = "application/json", "image/svg+xml", "image/png"


@dataclass(frozen=True)
class TrainedModel:
    """A finished training.

    Attributes:
        processed: the manifest of its films.
        sources: the sources of its films, sorted.
        best: the checkpoint of the epoch with the highest val_dice: model, config and epoch.
        history: the rows of all epochs.
    """

    fit_config: FitConfig
    processed: Manifest
    sources: Sequence[str]
    best: dict[str, Any]
    history: list[EpochRow]

    def write(self, folder: WorkFolder, val: Films, step: NewStep) -> Manifest:
        """Write the files and the manifest; the mask recipe is chosen on the films `val`.

        `step` makes the Progress of a step from its name, its total and its unit.
        """
        weights = checkpoint.to_safetensors(self.best["model"])
        folder.add_file("config.json", _json(asdict(self.fit_config)), JSON)
        folder.add_file("model.safetensors", weights)
        folder.add_file("model.json", _json(self.model_json(weights, val, step)), JSON)
        self._add_history(folder)
        counts = {"epochs": len(self.history)}
        return folder.finish(counts=counts, headline=self.headline())

    def model_json(self, weights: bytes, val: Films, step: NewStep) -> dict[str, Any]:
        """The network, how films are placed for it, how masks are made, and its training."""
        architecture = build_model(self.fit_config).architecture
        precision = self.fit_config.precision
        return {
            "network": "unet",
            "architecture": architecture,
            "recipe": {
                "spatial_size": self.fit_config.size,
                "fit": self.processed.config["fit"],
                "crop_borders": self.processed.config["crop_borders"],
                "precision": precision,
                **_mask_recipe(weights, architecture, precision, val, step),
            },
            "training": asdict(self.fit_config),
            "metrics": {"epoch": self.best["epoch"], "val_dice": self._best_row["val_dice"]},
            "data": {
                "processed": self.processed.content_hash,
                "train_sources": self.sources,
                "train_films": count_films(self.processed, "train", self.sources),
                "val_films": count_films(self.processed, "val", self.sources),
                "by_source": self.processed.details["by_source"],
            },
        }

    def headline(self) -> dict[str, Any]:
        """The figures of the last and of the best epoch that the job prints."""
        last = self.history[-1]
        return {
            "epochs": len(self.history),
            "train_loss": round(last["train_loss"], 6),
            "val_loss": round(last["val_loss"], 6),
            "val_dice": round(last["val_dice"], 6),
            "best_epoch": self.best["epoch"],
            "best_val_dice": round(self._best_row["val_dice"], 6),
            "learning_rate": last["learning_rate"],
            "epoch_seconds": round(last["seconds"], 2),
        }

    @property
    def _best_row(self) -> EpochRow:
        epoch: int = self.best["epoch"]
        return self.history[epoch - 1]

    def _add_history(self, folder: WorkFolder) -> None:
        """Add the history in four forms. Seconds are in them, so no content hash covers them."""
        history, epochs = self.history, len(self.history)
        folder.add_file("history.json", _json({"epochs": history}), JSON, has_timings=True)
        folder.add_table("history.csv", list(history[0]), history, has_timings=True)
        folder.add_file("curves.svg", picture(history, epochs), SVG, has_timings=True)
        folder.add_file("curves.png", draw_curves(history), PNG, has_timings=True)


def _mask_recipe(
    weights: bytes, architecture: dict[str, int], precision: str, val: Films, step: NewStep
) -> dict[str, Any]:
    """The MaskRecipe that is best on the validation films, at most MOST_TO_CHOOSE_ON of them."""
    model = inference.load_model(weights, architecture)
    count = min(len(val), MOST_TO_CHOOSE_ON)
    indices = np.linspace(0, len(val) - 1, count).round().astype(np.int64)
    images, masks = val.images[indices].numpy(), val.masks[indices].numpy() > 0
    started = time.monotonic()
    log.info("choosing the threshold on %d validation films", count)
    with step("predicting the validation films", count, "film") as progress:
        probabilities = inference.probabilities_of_all(
            model, images, precision=precision, reach=progress.reach
        )
    with step("choosing the threshold", postprocess.CANDIDATES, "recipe") as progress:
        recipe = postprocess.choose(probabilities, masks, reach=progress.reach)
    log.info("masks from probabilities: %s, %.1f s", recipe, time.monotonic() - started)
    return recipe


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
