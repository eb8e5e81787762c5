"""Pixels on their way into the network: augmentation and standardization, batched on the device."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Whole draws. No flips: the heart is on the left.
MAX_ROTATION = math.radians(15)
MAX_SCALING = 0.2
MAX_SHIFT = 0.1
MAX_LOG_GAMMA = 0.8
MAX_NOISE = 0.1  # standard deviation, of a film's range from black to white
SOFTNESS = 4  # pixels that one is made of where a film is blurred most

DRAWS = 8
SEED = 7  # the draw that is none


def standardize(images: Tensor) -> Tensor:
    """Images with mean 0 and standard deviation 1 each, whatever their exposure and contrast.

    Args:
        images: (B, H, W) or (B, 1, H, W), uint8 or float, on any scale.

    Returns:
        (B, 1, H, W) float32; a film of one grey is all 0.
    """
    pixels = images.reshape(images.shape[0], 1, *images.shape[-2:]).float()
    if not len(pixels):  # a rank's slice of a batch smaller than the number of ranks
        return pixels
    deviation, mean = torch.std_mean(pixels, dim=(2, 3), correction=0, keepdim=True)
    return (pixels - mean) / deviation.clamp_min(1e-6)


def draw(seed: int, epoch: int, step: int, count: int) -> Tensor:
    """Random numbers, (count, DRAWS) float64 on the CPU: rotation, scaling, two shifts, gamma,
    softness and noise in [-1, 1], and a seed of the noise, a whole number.

    They depend on the arguments alone (epoch and step from 1), so a resumed run or one of several
    processes, which takes its slice of the rows, augments as an unbroken run of one would.
    """
    random = np.random.default_rng([seed, epoch, step])
    draws = random.uniform(-1, 1, (count, DRAWS))
    draws[:, SEED] = random.integers(2**31, size=count)
    return torch.from_numpy(draws)


def augment(images: Tensor, masks: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate, scale, shift, re-expose, blur and roughen films, and move their masks along.

    Args:
        images: (B, H, W) uint8, H = W.
        masks: (B, H, W) uint8, 0 or 1.
        draws: (B, DRAWS) of `draw`; of zeros, nothing changes.

    Returns:
        images (B, 1, H, W) float32, 0 black and 1 white, where there was no film as at its border;
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
    """Images (B, 1, H, W) as films of SOFTNESS times fewer pixels along each side show them."""
    coarse = F.avg_pool2d(images, SOFTNESS, ceil_mode=True)
    return F.interpolate(coarse, size=images.shape[-2:], mode="bilinear")


def grains(seeds: Tensor, images: Tensor) -> Tensor:
    """Normal noise (B, 1, H, W), each film's from its own seed, whatever batch it is in."""
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
    """From the output's coordinates to the input's, (B, 2, 3), both in [-1, 1] over the image."""
    rotation = MAX_ROTATION * draws[:, 0]
    scaling = 1 + MAX_SCALING * draws[:, 1]
    shift = 2 * MAX_SHIFT * draws[:, 2:4]
    cosine, sine = torch.cos(rotation) / scaling, torch.sin(rotation) / scaling
    rows = [cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]]
    return torch.stack(rows, dim=1).reshape(-1, 2, 3)
