"""The settings of a training, and the network and optimizer that are built from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from jobs.errors import ConfigError
from jobs.segmentation.unet import UNet

# The networks that --network names, as arguments of UNet.
NETWORKS: dict[str, dict[str, Any]] = {
    "small": {"base_channels": 16, "depth": 3, "stem_stride": 2},
    "base": {"base_channels": 24, "depth": 4, "stem_stride": 2},
    "large": {"base_channels": 40, "depth": 4, "stem_stride": 2},
}


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The settings that decide the weights which a training ends with.

    size: side of the films in pixels. batch_size: films of a step over all processes together.
    learning_rate: peak of the one-cycle schedule. weight_decay: of AdamW. base_channels, depth,
    stem_stride: arguments of UNet. precision: as for `jobs.segmentation.device.arithmetic`.

    Raises ConfigError where the network does not divide the size.
    """

    size: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    base_channels: int
    depth: int
    stem_stride: int = 1
    seed: int
    precision: str

    def __post_init__(self) -> None:
        multiple = self.stem_stride * 2**self.depth
        # Two pixels a side at the bottleneck give even a batch of one film a variance there.
        if self.size % multiple or self.size < 2 * multiple:
            raise ConfigError(
                f"--size {self.size} does not fit a network that divides it by {multiple}: give a "
                f"multiple of {multiple} from {2 * multiple} on, or a smaller --network"
            )


def build_model(config: FitConfig) -> UNet:
    """A U-Net with the weights of `config.seed`, the same on every device and rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return UNet(
            base_channels=config.base_channels, depth=config.depth, stem_stride=config.stem_stride
        )


def build_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """AdamW that decays the weights of convolutions, not biases or normalisations."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
