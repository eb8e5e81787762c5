"""MONAI 1.6.1: BasicUNet, DiceLoss, Adam at 1e-3, the best epoch on the validation films.

These are the settings of its tutorials for 2D segmentation. The augmentation differs, because the
tutorials' crops and quarter turns are meant for discs: here MONAI's transforms rotate, scale and
shift whole films and change their contrast.
"""

# MONAI is installed in .venv-bench only, so mypy does not find it.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceLoss
from monai.metrics import compute_dice
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, RandAdjustContrastd, RandAffined, ScaleIntensityd
from torch import Tensor, nn

from tests.bench.cost import Clock
from tests.bench.runs import Pair, Pixels

BATCH_SIZE = 8
EPOCHS_A_VALIDATION = 2
ROTATION, SCALING, SHIFT, LOG_GAMMA = math.radians(15), 0.2, 0.1, 0.4


def builder(size: int) -> Callable[[int], nn.Module]:
    """A function that builds a BasicUNet from the number of features of its first level.

    The widths keep the proportions of MONAI's default, which has 32 features in the first level.
    """

    def build(features: int) -> nn.Module:
        widths = [features * factor for factor in (1, 1, 2, 4, 8, 1)]
        network: nn.Module = BasicUNet(2, in_channels=1, out_channels=1, features=widths)
        return network

    return build


def train(
    network: nn.Module, train: Pair, val: Pair, seed: int, clock: Clock
) -> Callable[[Pixels], Tensor]:
    """Train until the budget is spent, validation included; restore the best weights.

    Returns a function from images, uint8 (B, S, S), to probabilities of lung, float32 (B, S, S).
    """
    criterion = DiceLoss(sigmoid=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = load(train, seed)
    batches: Iterator[dict[str, Tensor]] = itertools.chain.from_iterable(itertools.repeat(loader))
    # The first batch imports packages: that cost is not part of the training.
    next(batches)
    probabilities_of = predictor(network)
    best = _Best()
    for step, _ in enumerate(clock.steps(), start=1):
        batch = next(batches)
        network.train()
        optimizer.zero_grad()
        loss = criterion(network(batch["image"]), batch["label"])
        loss.backward()
        optimizer.step()
        clock.end_step(len(batch["image"]), loss.item())
        if step % (EPOCHS_A_VALIDATION * len(loader)) == 0:
            best.offer(network, val_dice(probabilities_of, val))
    best.offer(network, val_dice(probabilities_of, val))
    network.load_state_dict(best.weights)
    return probabilities_of


def load(films: Pair, seed: int) -> Any:
    """Shuffled batches of augmented films, {"image", "label"}: float32 (B, 1, S, S)."""
    shift = SHIFT * films[0].shape[-1]
    augment = Compose(
        [
            ScaleIntensityd("image"),
            RandAffined(
                ("image", "label"),
                prob=1,
                rotate_range=ROTATION,
                scale_range=(SCALING, SCALING),
                translate_range=(shift, shift),
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandAdjustContrastd("image", prob=1, gamma=(math.exp(-LOG_GAMMA), math.exp(LOG_GAMMA))),
        ]
    )
    augment.set_random_state(seed)
    rows = [
        {"image": image[None].astype(np.float32), "label": mask[None].astype(np.float32)}
        for image, mask in zip(*films, strict=True)
    ]
    return DataLoader(Dataset(rows, augment), batch_size=BATCH_SIZE, shuffle=True)


def predictor(network: nn.Module) -> Callable[[Pixels], Tensor]:
    """A function that computes probabilities; each film is scaled to 0..1, as in training."""

    def probabilities_of(images: Pixels) -> Tensor:
        network.eval()
        pixels = torch.from_numpy(images).float()[:, None]
        low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
        probabilities: Tensor = network((pixels - low) / (high - low).clamp_min(1)).sigmoid()
        return probabilities[:, 0]

    return probabilities_of


@torch.inference_mode()
def val_dice(probabilities_of: Callable[[Pixels], Tensor], val: Pair) -> float:
    """The mean Dice over the validation films."""
    scores = []
    for start in range(0, len(val[0]), BATCH_SIZE):
        images, masks = (part[start : start + BATCH_SIZE] for part in val)
        target = torch.from_numpy(masks)[:, None]
        scores.append(compute_dice((probabilities_of(images) >= 0.5)[:, None], target))
    return float(torch.cat(scores).mean())


class _Best:
    """The weights with the highest score so far."""

    def __init__(self) -> None:
        self.score = -1.0
        self.weights: dict[str, Tensor] = {}

    def offer(self, network: nn.Module, score: float) -> None:
        if score > self.score:
            self.score = score
            self.weights = {name: value.clone() for name, value in network.state_dict().items()}
