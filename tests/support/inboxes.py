"""A champion in S3, films for its inbox, and what its ledger holds."""

from __future__ import annotations

from typing import Any

from jobs.storage.manifest import describe
from jobs.storage.s3 import Store
from jobs.storage.work_folder import unpack_rows
from tests.support.films import draw_pair, png

FILM = png(draw_pair(1)[0])
OTHER = png(draw_pair(2, 90, 70)[0])
ARCHITECTURE = {"in_channels": 1, "num_classes": 1, "base_channels": 4, "depth": 1}


def crown(store: Store, out: str, version: str, weights: bytes = b"weights") -> None:
    """Make a version the champion, with its package beside it."""
    about = {
        "architecture": ARCHITECTURE,
        "recipe": {
            "spatial_size": 64,
            "fit": "stretch",
            "crop_borders": False,
            "threshold": 0.5,
            "precision": "float32",
        },
        "weights": {"sha256": describe("", weights).sha256},
    }
    store.write(f"{out}/models/lung-unet/{version}/model.safetensors", weights)
    store.write_json(f"{out}/models/lung-unet/{version}/model.json", about)
    store.write_json(f"{out}/models/lung-unet/champion.json", {"version": version})


def ledger(store: Store, out: str, version: str = "v1") -> list[dict[str, Any]]:
    parts = store.list_objects(f"{out}/masks/lung-unet/{version}/ledger/part-")
    return [row for part in parts for row in unpack_rows(store.read(part.uri))]
