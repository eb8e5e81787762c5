"""The films of a split as two uint8 arrays, and the global batches taken from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]

IMAGES, MASKS = "images.npy", "masks.npy"
GPU_SHARE = 0.5


@dataclass(frozen=True)
class Films:
    """Images and masks (N, S, S) uint8, masks 0 or 1; in memory, memory-mapped or on a GPU."""

    images: Tensor
    masks: Tensor

    def __post_init__(self) -> None:
        if self.images.shape != self.masks.shape or self.images.ndim != 3:
            raise ValueError(
                f"images {tuple(self.images.shape)} and masks {tuple(self.masks.shape)}: give both "
                "as (N, S, S)"
            )

    def __len__(self) -> int:
        return len(self.images)

    def lung_fraction(self) -> float:
        """The share of all pixels that are lung."""
        return sum(int(mask.count_nonzero()) for mask in self.masks) / max(1, self.masks.numel())

    def to(self, device: torch.device) -> Films:
        """The films on `device` where they fit, with room for the network; else as they are."""
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if 2 * self.images.numel() > GPU_SHARE * free:
                return self
        return Films(self.images.to(device), self.masks.to(device))

    def batch(self, indices: Indices, device: torch.device) -> tuple[Tensor, Tensor]:
        """The images and masks (B, S, S) uint8 at `indices`, on `device`."""
        chosen = torch.from_numpy(indices).to(self.images.device)
        # Copies whole films; indexing by a tensor goes pixel by pixel and takes 20 times as long.
        images, masks = (pixels.index_select(0, chosen) for pixels in (self.images, self.masks))
        if images.device != device:
            images, masks = images.pin_memory(), masks.pin_memory()
        return images.to(device, non_blocking=True), masks.to(device, non_blocking=True)


def write_cache(
    folder: Path, films: Iterable[tuple[NDArray[np.uint8], NDArray[Any]]], count: int, size: int
) -> None:
    """Write `count` pairs of image (size, size) uint8 and mask (size, size) bool to `folder`.

    Raises ValueError when there are more or fewer pairs, or one has another shape.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images, masks = (
        np.lib.format.open_memmap(folder / name, "w+", np.uint8, (count, size, size))
        for name in (IMAGES, MASKS)
    )
    written = 0
    for written, (image, mask) in enumerate(films, start=1):
        if written > count or image.shape != (size, size) or mask.shape != (size, size):
            raise ValueError(
                f"film {written} of {count}: image {image.shape} and mask {mask.shape}, where both "
                f"are to be ({size}, {size})"
            )
        images[written - 1], masks[written - 1] = image, mask
    if written < count:
        raise ValueError(f"{written} films came where {count} were announced")
    images.flush()
    masks.flush()


def load_cache(folder: Path) -> Films:
    """The films that `write_cache` left in `folder`, memory-mapped: processes share the pages."""
    # Copy on write, because torch warns of arrays that it could not write to.
    images, masks = (np.load(folder / name, mmap_mode="c") for name in (IMAGES, MASKS))
    return Films(torch.from_numpy(images), torch.from_numpy(masks))


def shuffled(count: int, seed: int, epoch: int) -> Indices:
    """A permutation of the films for one epoch, from 1; it depends on the arguments alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def global_batches(order: Indices, batch_size: int) -> list[Indices]:
    """`order` in as few batches of at most `batch_size` as hold it, their sizes one apart at most.

    So every film is used once and no batch is left with a film or two, whose statistics would be
    noise. Rank r of n takes batch[r::n].
    """
    return np.array_split(order, -(-len(order) // batch_size))
