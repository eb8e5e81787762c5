"""What a training run computes: the network by its name, the optimizer, and all their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from jobs.errors import ConfigError
from jobs.segmentation.unet import UNet

NETWORKS: dict[str, dict[str, Any]] = {
    "small": {"base_channels": 16, "depth": 3, "stem_stride": 2},
    "base": {"base_channels": 24, "depth": 4, "stem_stride": 2},
    "large": {"base_channels": 40, "depth": 4, "stem_stride": 2},
}
"""What --network names, as arguments of UNet."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What a training run computes; `batch_size` counts the films of all processes together."""

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
