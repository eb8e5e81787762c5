"""Stand-ins for the starter, so that tests do not depend on the one that comes with the project."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.films.known_looks import looks_text
from jobs.storage.manifest import describe

VERSION = "starter-1"
ARCHITECTURE = {"in_channels": 1, "num_classes": 1, "base_channels": 4, "depth": 1}
RECIPE = {
    "spatial_size": 64,
    "fit": "stretch",
    "crop_borders": False,
    "threshold": 0.5,
    "precision": "float32",
}


def write_starter(
    folder: Path,
    weights: bytes,
    *,
    looks: Iterable[bytes] = (),
    sources: Sequence[str] = ("custom",),
    architecture: Mapping[str, int] = ARCHITECTURE,
) -> Path:
    """A package with these weights; `looks` are the perceptual hashes of its training films."""
    about: dict[str, Any] = {
        "version": VERSION,
        "architecture": dict(architecture),
        "recipe": RECIPE,
        "weights": {"sha256": describe("", weights).sha256},
        "data": {
            "train_sources": [*sources],
            "train_films": 30,
            "val_films": 4,
            "looks": looks_text(looks),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.json").write_text(json.dumps(about))
    return folder


def fake_weights(rows: float) -> bytes:
    """Of the fake network of `tests.support.published`: it finds the upper `rows` of the lungs."""
    return json.dumps({"rows": rows, "size": RECIPE["spatial_size"], "special": {}}).encode()


def real_weights(architecture: Mapping[str, int] = ARCHITECTURE, *, half: bool = True) -> bytes:
    """Random weights of the small network, in float16 as the starter's."""
    from jobs.segmentation.checkpoint import to_safetensors
    from jobs.segmentation.unet import UNet

    state = UNet(**architecture).state_dict()
    if half:
        state = {
            name: value.half() if value.is_floating_point() else value
            for name, value in state.items()
        }
    return to_safetensors(state)
