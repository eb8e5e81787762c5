"""Augmentation and standardization of the network's input, batched on the device."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# The effect of a draw of 1. No flips: the heart is on the left.
MAX_ROTATION = math.radians(15)
MAX_SCALING = 0.2
# Of the side.
MAX_SHIFT = 0.1
MAX_LOG_GAMMA = 0.8
# Standard deviation, of the range from black to white.
MAX_NOISE = 0.1
# Side of the squares of pixels that are averaged where a film is blurred most.
SOFTNESS = 4

# Columns of the draws, and the one that holds the seed of the noise.
DRAWS = 8
SEED = 7


def standardize(images: Tensor) -> Tensor:
    """Each image with mean 0 and standard deviation 1, whatever its exposure and contrast.

    Args:
        images: (B, H, W) or (B, 1, H, W), uint8 or float, on any scale.

    Returns:
        (B, 1, H, W) float32; an image of one grey is all 0.
    """
    pixels = images.reshape(images.shape[0], 1, *images.shape[-2:]).float()
    # A rank's slice is empty where the batch has fewer films than there are ranks.
    if not len(pixels):
        return pixels
    deviation, mean = torch.std_mean(pixels, dim=(2, 3), correction=0, keepdim=True)
    return (pixels - mean) / deviation.clamp_min(1e-6)


def draw(seed: int, epoch: int, step: int, count: int) -> Tensor:
    """Random amounts of augmentation, (count, DRAWS) float64 on the CPU.

    Rotation, scaling, two shifts, gamma, softness and noise in [-1, 1], and a whole number, the
    seed of the noise. Only the arguments decide them (epoch and step from 1): a resumed run, or one
    of several processes, which takes its slice of the rows, augments as one unbroken process would.
    """
    random = np.random.default_rng([seed, epoch, step])
    draws = random.uniform(-1, 1, (count, DRAWS))
    draws[:, SEED] = random.integers(2**31, size=count)
    return torch.from_numpy(draws)


def augment(images: Tensor, masks: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate, scale and shift films and masks; change the exposure, blur and noise of the films.

    Args:
        images: (B, H, W) uint8, H = W.
        masks: (B, H, W) uint8, 0 or 1.
        draws: (B, DRAWS) of `draw`; draws of 0 change nothing.

    Returns:
        images (B, 1, H, W) float32, 0 black and 1 white, beyond the film the pixels of its border;
        target (B, 1, H, W) float32, 0 or 1.
    """
    pixels = torch.stack([images.float() / 255, masks.float()], dim=1)
    if not len(pixels):
        return pixels[:, :1], pixels[:, 1:]
    amounts = draws[:, :SEED].to(pixels)
    grid = F.affine_grid(affine(amounts), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    image, mask = moved.split(1, dim=1)
    gamma, softness, noise = amounts[:, 4:, None, None, None].unbind(dim=1)
    exposed = image.clamp(0, 1) ** torch.exp(MAX_LOG_GAMMA * gamma)
    softened = torch.lerp(exposed, blurred(exposed), softness.clamp_min(0))
    grain = grains(draws[:, SEED], softened)
    return softened + MAX_NOISE * noise.abs() * grain, (mask >= 0.5).float()


def blurred(images: Tensor) -> Tensor:
    """Images (B, 1, H, W) reduced by SOFTNESS along each side and enlarged again."""
    coarse = F.avg_pool2d(images, SOFTNESS, ceil_mode=True)
    return F.interpolate(coarse, size=images.shape[-2:], mode="bilinear")


def grains(seeds: Tensor, images: Tensor) -> Tensor:
    """Normal noise (B, 1, H, W), one seed per film, so that it does not depend on the batch."""
    device = images.device
    return torch.stack(
        [
            torch.randn(
                images.shape[1:],
                generator=torch.Generator(device).manual_seed(int(seed)),
                device=device,
            )
            for seed in seeds.tolist()
        ]
    )


def affine(draws: Tensor) -> Tensor:
    """(B, 2, 3): maps coordinates of the output to the input's, both in [-1, 1] over the image."""
    rotation = MAX_ROTATION * draws[:, 0]
    scaling = 1 + MAX_SCALING * draws[:, 1]
    shift = 2 * MAX_SHIFT * draws[:, 2:4]
    cosine, sine = torch.cos(rotation) / scaling, torch.sin(rotation) / scaling
    rows = [cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]]
    return torch.stack(rows, dim=1).reshape(-1, 2, 3)
