"""The files of a training, which pass data between two Python environments.

A folder holds {train,val,test}-{images,masks}.npy, uint8 (N, S, S), masks 0 or 1. A run writes
<name>.json, its facts, and <name>-{val,test}.npy, the probabilities of lung, float32 (N, S, S).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
Probabilities: TypeAlias = NDArray[np.float32]
Pair: TypeAlias = tuple[Pixels, Pixels]


def write_split(folder: Path, split: str, films: Pair) -> None:
    """Write images and masks, each uint8 (N, S, S), for a run to read."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, pixels in zip(("images", "masks"), films, strict=True):
        np.save(folder / f"{split}-{kind}.npy", pixels)


def read_split(folder: Path, split: str) -> Pair:
    """(images, masks), each uint8 (N, S, S)."""
    images, masks = (np.load(folder / f"{split}-{kind}.npy") for kind in ("images", "masks"))
    return images, masks


def write_run(
    folder: Path, name: str, facts: Mapping[str, Any], by_split: Mapping[str, Probabilities]
) -> None:
    """Write the probabilities of each split, then the facts, whose file marks the run complete."""
    for split, probabilities in by_split.items():
        np.save(folder / f"{name}-{split}.npy", probabilities)
    write_json(folder / f"{name}.json", facts)


def read_facts(folder: Path, name: str) -> dict[str, Any] | None:
    """The facts of a run, or None if it is not complete."""
    try:
        facts: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    return facts


def read_probabilities(folder: Path, name: str, split: str) -> Probabilities:
    """Probabilities of lung, float32 (N, S, S), of the films of a split."""
    probabilities: Probabilities = np.load(folder / f"{name}-{split}.npy")
    return probabilities


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically: a reader sees the old file or the whole new one."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)
