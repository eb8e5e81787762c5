"""The films of a split as two uint8 arrays, and the global batches taken from them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.errors import ServiceUnavailableError

Indices = NDArray[np.int64]

# The files of a cache folder.
IMAGES, MASKS = "images.npy", "masks.npy"
# What a full disk, a quota and the limit on a file's size answer.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of a GPU's free memory, for the films; the rest is for the network.
GPU_SHARE = 0.5


@dataclass(frozen=True)
class Films:
    """Images and masks (N, S, S) uint8, masks 0 or 1; in memory, memory-mapped or on a GPU.

    Raises ValueError where the shapes differ.
    """

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
        """The share of all pixels that is lung, 0..1; 0 without films."""
        return sum(int(mask.count_nonzero()) for mask in self.masks) / max(1, self.masks.numel())

    def to(self, device: torch.device) -> Films:
        """The films on `device` where GPU_SHARE of its free memory holds them; else unmoved."""
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if 2 * self.images.numel() > GPU_SHARE * free:
                return self
        return Films(self.images.to(device), self.masks.to(device))

    def batch(self, indices: Indices, device: torch.device) -> tuple[Tensor, Tensor]:
        """The images and masks (B, S, S) uint8 at `indices` (B,), on `device`."""
        films = torch.from_numpy(indices).to(self.images.device)
        # index_select copies whole films; indexing by a tensor copies pixels, 20 times slower.
        images, masks = (pixels.index_select(0, films) for pixels in (self.images, self.masks))
        if images.device != device:
            images, masks = images.pin_memory(), masks.pin_memory()
        return images.to(device, non_blocking=True), masks.to(device, non_blocking=True)


def write_cache(
    folder: Path, films: Iterable[tuple[NDArray[np.uint8], NDArray[Any]]], count: int, size: int
) -> None:
    """Write `count` pairs of image (size, size) uint8 and mask (size, size) bool to `folder`.

    Raises ValueError where there are more or fewer pairs, or a pair has another shape;
    ServiceUnavailableError, which is retried, where the disk is full: others may free it.
    """
    free = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        images, masks = (_allocated(folder / name, (count, size, size)) for name in (IMAGES, MASKS))
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        needed = 2 * count * size**2
        raise ServiceUnavailableError(
            f"no space in {folder.parent}: the training needs {-(-needed // 10**6)} MB for its "
            f"films there, {free // 10**6} MB are free ({error.strerror}): free some, or set "
            "TMPDIR to a folder on a larger disk"
        ) from error
    written = 0
    for written, (image, mask) in enumerate(films, start=1):
        if written > count or image.shape != (size, size) or mask.shape != (size, size):
            raise ValueError(
                f"film {written} of {count}: image {image.shape} and mask {mask.shape}: give "
                f"{count} films, each as ({size}, {size})"
            )
        images[written - 1], masks[written - 1] = image, mask
    if written < count:
        raise ValueError(f"{written} films of {count}: give {count} pairs")
    images.flush()
    masks.flush()


def _allocated(path: Path, shape: tuple[int, int, int]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new memory-mapped array whose every byte has its place on the disk."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    # The file is sparse: on a full disk the first write to a page without a place is SIGBUS.
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def load_cache(folder: Path) -> Films:
    """The films that `write_cache` wrote to `folder`, memory-mapped: processes share the pages."""
    # Copy on write: torch.from_numpy warns of read-only arrays.
    images, masks = (np.load(folder / name, mmap_mode="c") for name in (IMAGES, MASKS))
    return Films(torch.from_numpy(images), torch.from_numpy(masks))


def shuffled(count: int, seed: int, epoch: int) -> Indices:
    """A permutation of range(count) for an epoch, from 1, that only the arguments decide."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def global_batches(order: Indices, batch_size: int) -> list[Indices]:
    """`order` in the fewest batches of at most `batch_size` films, their sizes equal or 1 apart.

    Every film is used once. Even sizes leave no batch of a film or two, whose statistics would be
    noise. Rank r of n takes batch[r::n].
    """
    return np.array_split(order, -(-len(order) // batch_size))
