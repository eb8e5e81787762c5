"""Pixels on their way into the network: augmentation and standardization, batched on the device."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# No flips: the heart is on the left.
MAX_ROTATION = math.radians(15)
MAX_SCALING = 0.2
MAX_SHIFT = 0.1
MAX_LOG_GAMMA = 0.4


def standardize(images: Tensor) -> Tensor:
    """Images with mean 0 and standard deviation 1 each, whatever their exposure and contrast.

    Args:
        images: (B, H, W) or (B, 1, H, W), uint8 or float, on any scale.

    Returns:
        (B, 1, H, W) float32; a film of one grey is all 0.
    """
    pixels = images.reshape(images.shape[0], 1, *images.shape[-2:]).float()
    deviation, mean = torch.std_mean(pixels, dim=(2, 3), correction=0, keepdim=True)
    return (pixels - mean) / deviation.clamp_min(1e-6)


def draw(seed: int, epoch: int, step: int, count: int) -> Tensor:
    """Random numbers in [-1, 1], (count, 5) float32: rotation, scaling, two shifts, gamma.

    They depend on the arguments alone (epoch and step from 1), so a resumed run or one of several
    processes, which takes its slice of the rows, augments as an unbroken run of one would.
    """
    random = np.random.default_rng([seed, epoch, step])
    return torch.from_numpy(random.uniform(-1, 1, (count, 5)).astype(np.float32))


def augment(images: Tensor, masks: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate, scale, shift and re-expose films and move their masks along.

    Args:
        images: (B, H, W) uint8, H = W.
        masks: (B, H, W) uint8, 0 or 1.
        draws: (B, 5) of `draw`.

    Returns:
        images (B, 1, H, W) float32 in [0, 1], where there was no film as at its border;
        target (B, 1, H, W) float32, 0 or 1.
    """
    pixels = torch.stack([images.float() / 255, masks.float()], dim=1)
    if not len(pixels):  # a rank's slice of a batch smaller than the number of ranks
        return pixels[:, :1], pixels[:, 1:]
    grid = F.affine_grid(affine(draws), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    image, mask = moved.split(1, dim=1)
    gamma = torch.exp(MAX_LOG_GAMMA * draws[:, 4])
    return image.clamp(0, 1) ** gamma[:, None, None, None], (mask >= 0.5).float()


def affine(draws: Tensor) -> Tensor:
    """From the output's coordinates to the input's, (B, 2, 3), both in [-1, 1] over the image."""
    rotation = MAX_ROTATION * draws[:, 0]
    scaling = 1 + MAX_SCALING * draws[:, 1]
    shift = 2 * MAX_SHIFT * draws[:, 2:4]
    cosine, sine = torch.cos(rotation) / scaling, torch.sin(rotation) / scaling
    rows = [cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]]
    return torch.stack(rows, dim=1).reshape(-1, 2, 3)
