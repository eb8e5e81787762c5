"""nnU-Net 2.8.1, from its package: network, loss, optimizer, augmentation, mirrored prediction.

The number of stages and the batch size follow its planning rules, with the whole film as the patch.
The learning rate decays with the share of the budget that is spent, in place of its epochs.
"""

# nnU-Net is installed in .venv-bench only, so mypy does not find it.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn

from tests.bench.cost import Clock
from tests.bench.runs import Pair, Pixels

Strides: TypeAlias = Sequence[tuple[int, int]]

# Smallest side of a feature map, at the lowest stage, in pixels.
SMALLEST_MAP = 4
# The widest stage in multiples of the first one's features: nnU-Net's 512 over its 32.
WIDEST = 16
MIRRORINGS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))
CLASSES = {
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "dropout_op": None,
    "nonlin": "torch.nn.LeakyReLU",
}


def strides_of(size: int) -> Strides:
    """The stride of each stage, the first (1, 1), as nnU-Net plans them for square pixels."""
    strides: Strides = get_pool_and_conv_props((1.0, 1.0), (size, size), SMALLEST_MAP, 999999)[1]
    return strides


def builder(size: int) -> Callable[[int], nn.Module]:
    """A function that builds the plain U-Net from the number of features of its first stage."""
    strides = strides_of(size)
    stages = len(strides)

    def build(features: int) -> nn.Module:
        settings = {
            "n_stages": stages,
            "features_per_stage": [features * min(WIDEST, 2**stage) for stage in range(stages)],
            "kernel_sizes": [3] * stages,
            "strides": strides,
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op_kwargs": None,
            "nonlin_kwargs": {"inplace": True},
        }
        network: nn.Module = get_network_from_plans(
            "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            settings | CLASSES,
            tuple(CLASSES),
            input_channels=1,
            output_channels=2,
            deep_supervision=True,
        )
        return network

    return build


def train(
    network: nn.Module, train: Pair, val: Pair, seed: int, clock: Clock
) -> Callable[[Pixels], Tensor]:
    """Train until the budget is spent and keep the last weights; `val` is not used.

    Returns a function from images, uint8 (B, S, S), to probabilities of lung, float32 (B, S, S).
    """
    size = train[0].shape[-1]
    scales = (1 / np.cumprod(strides_of(size), axis=0))[:-1].tolist()
    criterion = loss_of(len(scales))
    augment = nnUNetTrainer.get_training_transforms(
        (size, size), (-math.pi, math.pi), scales, (0, 1), do_dummy_2d_data_aug=False
    )
    optimizer = torch.optim.SGD(
        network.parameters(), lr=1e-2, momentum=0.99, weight_decay=3e-5, nesterov=True
    )
    images, masks = standardize(train[0]), torch.from_numpy(train[1]).to(torch.int16)[:, None]
    films = batch_size(size, len(images))
    random = np.random.default_rng(seed)
    network.train()
    for spent in clock.steps():
        batch = [
            augment(image=images[index], segmentation=masks[index])
            for index in random.integers(len(images), size=films)
        ]
        targets = zip(*(film["segmentation"] for film in batch), strict=True)
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - spent) ** 0.9
        optimizer.zero_grad()
        outputs = network(torch.stack([film["image"] for film in batch]))
        loss = criterion(outputs, [torch.stack(target) for target in targets])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        clock.end_step(films, loss.item())
    return predictor(network)


def loss_of(outputs: int) -> nn.Module:
    """Dice over the batch + cross-entropy; each output has half the weight of the one above it."""
    weights = 0.5 ** np.arange(outputs)
    # nnU-Net's trainer gives the lowest output no weight.
    weights[-1] = 0
    soft_dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    criterion: nn.Module = DeepSupervisionWrapper(
        DC_and_CE_loss(soft_dice, {}, dice_class=MemoryEfficientSoftDiceLoss),
        weights / weights.sum(),
    )
    return criterion


def batch_size(size: int, films: int) -> int:
    """The batch size that nnU-Net plans: 12 films of 512 pixels in 8 GB, at most 5 % of all films.

    The minimum is 2.
    """
    return max(2, min(round(12 * (512 / size) ** 2), round(0.05 * films)))


def standardize(images: Pixels) -> Tensor:
    """(N, 1, S, S) float32, each film of mean 0 and deviation 1: nnU-Net's ZScoreNormalization."""
    pixels = torch.from_numpy(images).float()[:, None]
    deviation, mean = torch.std_mean(pixels, dim=(2, 3), correction=0, keepdim=True)
    return (pixels - mean) / deviation.clamp_min(1e-8)


def predictor(network: nn.Module) -> Callable[[Pixels], Tensor]:
    """A function that computes probabilities from the mean logits of the four mirrored films."""
    network.eval()
    network.decoder.deep_supervision = False  # type: ignore[union-attr]

    def probabilities_of(images: Pixels) -> Tensor:
        inputs = standardize(images)
        logits = [network(inputs.flip(axes)).flip(axes) for axes in MIRRORINGS]
        return torch.stack(logits).mean(dim=0).softmax(dim=1)[:, 1]

    return probabilities_of
