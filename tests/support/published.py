"""The chain up to evaluate on small films with a fake network, so that publish can be tested."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs import download, evaluate, predict, preprocess, publish
from jobs.films.training_pairs import count_films, sources_of
from jobs.segmentation import inference
from jobs.settings.config import (
    DownloadConfig,
    EvaluateConfig,
    PredictConfig,
    PreprocessConfig,
    PublishConfig,
    TrainConfig,
)
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder
from tests.support.films import write_montgomery

SIZE = 64
SPLIT = ("train", "val", "test", "train", "test", "train")  # of 24 films 12, 4 and 8
HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 0.6 / epoch,
        "val_loss": 0.7 / epoch,
        "val_dice": [0.4, 0.7, 0.9, 0.85][epoch - 1],
        "learning_rate": 0.003,
        "seconds": 1.5,
        "lung_fraction": 0.25,
        "all_lung_loss": 0.6,
        "images_per_second": 40.0,
        "data_wait": 0.1,
    }
    for epoch in range(1, 5)
]

Network = Mapping[str, Any]


def load_network(weights: bytes, architecture: Mapping[str, int]) -> Network:
    network: Network = json.loads(weights)
    return network


def call_dark_lung(
    network: Network, images: NDArray[np.uint8], *, precision: str
) -> NDArray[np.float32]:
    """1 where a film is dark in its upper `rows` (share, 0..1): the fewer rows, the lower the Dice.

    `columns` limits it to this share of the columns, from the left. `special` maps the sum of a
    film's pixels to other rows for that film.
    """
    masks = []
    for image in images:
        assert image.shape == (network["size"], network["size"])
        rows = network["special"].get(str(image.sum()), network["rows"])
        upper = np.arange(len(image)) < rows * len(image)
        left = np.arange(len(image)) < network.get("columns", 1.0) * len(image)
        masks.append((image < 125) & upper[:, np.newaxis] & left)
    return np.array(masks, dtype=np.float32)


@dataclass(frozen=True)
class Chain:
    """One data set in S3; each network trained on it gives a run's five manifests."""

    store: Store
    out: str
    raw: Manifest
    processed: Manifest

    def five(
        self,
        rows: float,
        *,
        size: int = SIZE,
        special: Mapping[str, float] | None = None,
        more: Mapping[str, Any] | None = None,
        **data: Any,
    ) -> dict[str, Manifest]:
        """The five manifests of a run whose network finds the upper `rows` (0..1) of the lungs.

        `more` sets the network's fit or columns, or the origin of its weights; `data` goes into
        "data" of its model.json.
        """
        network: dict[str, Any] = {"rows": rows, "size": size, "special": dict(special or {})}
        network |= more or {}
        trained = self.train(network | ({"data": data} if data else {}))
        config = PredictConfig(trained=trained.uri, films=self.raw.uri, out=self.out)
        predictions = predict.run(config, self.store)
        evaluation = evaluate.run(
            EvaluateConfig(predictions=predictions.uri, processed=self.processed.uri, out=self.out),
            self.store,
        )
        return {
            "raw": self.raw,
            "processed": self.processed,
            "trained": trained,
            "predictions": predictions,
            "evaluation": evaluation,
        }

    def train(self, network: Network) -> Manifest:
        work_folder = WorkFolder(
            self.store,
            TrainConfig(processed=self.processed.uri, out=self.out),
            job="train",
            folder="trained",
            recipe="test",
            inputs={"processed": self.processed},
            extra=network,
        )
        if manifest := work_folder.finished():
            return manifest
        sources = sources_of(self.processed)
        model_json = {
            "network": "unet",
            "architecture": {"in_channels": 1, "num_classes": 1, "base_channels": 4, "depth": 1},
            "recipe": {
                "spatial_size": network["size"],
                "threshold": 0.5,
                "fit": network.get("fit", "stretch"),
                "crop_borders": False,
                "precision": "auto",
            },
            "metrics": {"epoch": 3, "val_dice": 0.9},
            "data": {
                "processed": self.processed.content_hash,
                "train_sources": sources,
                "train_films": count_films(self.processed, "train", sources),
                "val_films": count_films(self.processed, "val", sources),
                **network.get("data", {}),
            },
            "training": {"init_from": network["origin"]} if "origin" in network else {},
        }
        work_folder.add_file("model.json", json.dumps(model_json).encode())
        work_folder.add_file("model.safetensors", json.dumps(network).encode())
        history = json.dumps({"epochs": HISTORY}).encode()
        work_folder.add_file("history.json", history, has_timings=True)
        return work_folder.finish(counts={}, headline={})

    def publish(self, five: Mapping[str, Manifest], **options: Any) -> Manifest:
        uris = {name: manifest.uri for name, manifest in five.items()}
        settings = {"out": self.out, "min_dice": 0.5, "starter": False}
        config = PublishConfig(**{**settings, **uris, **options})
        return publish.run(config, self.store)

    def champion(self, name: str) -> dict[str, Any]:
        champion: dict[str, Any] = self.store.read_json(f"{self.out}/models/{name}/champion.json")
        return champion

    def films_of(self, split: str) -> list[dict[str, Any]]:
        return [row for row in self.processed.rows(self.store) if row.get("split") == split]


@contextlib.contextmanager
def chain(
    s3: Mapping[str, str],
    folder: Path,
    *,
    stem: str = "MCUCXR",
    seed: int = 0,
    split: Sequence[str] = SPLIT,
) -> Iterator[Chain]:
    """24 films in a new prefix, and the fake network in place of a trained one.

    The films are of the source that `stem` shows, such as PHANTOM; another `seed` draws others.
    """
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in s3.items():
            patch.setenv(variable, value)
        patch.setattr(inference, "load_model", load_network)
        patch.setattr(inference, "probabilities", call_dark_lung)
        store, out = Store(), f"s3://lung/{uuid.uuid4().hex}"
        write_montgomery(folder, 24, stem=stem, seed=seed)
        raw = download.run(DownloadConfig(source=folder.as_uri(), out=out), store)
        patients = [row["patient"] for row in raw.rows(store)]
        lines = [f"{patient},{split[(n + 1) % 6]}" for n, patient in enumerate(patients)]
        store.write(f"{out}/split.csv", "\n".join(["patient,split", *lines]).encode())
        config = PreprocessConfig(raw=raw.uri, out=out, size=SIZE, split_file=f"{out}/split.csv")
        yield Chain(store, out, raw, preprocess.run(config, store))
