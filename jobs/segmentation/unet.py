"""The U-Net of Ronneberger, Fischer and Brox (2015), with batch normalisation and padding.

A U-Net spends most of its time at full resolution, where a film shows no more of a lung than its
border. So a strided convolution may come before it and a linear enlargement of the logits after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.segmentation.normalization import GlobalBatchNorm2d

# The smallest and the largest value of each argument of UNet.
BOUNDS = {
    "in_channels": (1, 16),
    "num_classes": (1, 16),
    "base_channels": (1, 1024),
    "depth": (1, 8),
    "stem_stride": (1, 16),
}
# Weights of the convolutions; the largest of --network has 21 million.
MOST_WEIGHTS = 100_000_000


def check_architecture(architecture: Mapping[str, object]) -> None:
    """Raise ValueError where UNet(**architecture) would be of no use, or too large for memory."""
    for name, value in architecture.items():
        if name not in BOUNDS:
            raise ValueError(f"{name} is no argument of a U-Net: give {', '.join(BOUNDS)}")
        low, high = BOUNDS[name]
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} of a U-Net is {value!r}: give {low} to {high}")
    base_channels, depth = (architecture.get(name, 1) for name in ("base_channels", "depth"))
    assert isinstance(base_channels, int) and isinstance(depth, int)
    # The bottleneck's second convolution, 3x3, has more weights than any other layer.
    if (weights := 9 * (base_channels * 2**depth) ** 2) > MOST_WEIGHTS:
        raise ValueError(
            f"base_channels {base_channels} and depth {depth} give a layer of {weights} weights: "
            f"give a U-Net whose layers have at most {MOST_WEIGHTS}"
        )


class UNet(nn.Module):
    """Halves the image `depth` times and doubles the channels each time, then back up with skips.

    Args:
        in_channels: channels of the image.
        num_classes: channels of the logits, one per class against the rest.
        base_channels: channels of the first level.
        depth: how many times the first level is halved.
        stem_stride: pixels of the image per pixel of the first level, along each side.

    Attributes:
        architecture: these arguments, by name.

    Raises ValueError, before any weight is made, where an argument is out of BOUNDS.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 1,
        base_channels: int = 32,
        depth: int = 4,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        self.architecture = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "base_channels": base_channels,
            "depth": depth,
            "stem_stride": stem_stride,
        }
        check_architecture(self.architecture)
        self.stem: nn.Module = nn.Identity()
        if stem_stride > 1:
            self.stem = stem(in_channels, base_channels, stem_stride)
            in_channels = base_channels
        channels = [base_channels * 2**level for level in range(depth + 1)]
        *encoder_channels, bottleneck_channels = channels
        self.encoder = nn.ModuleList(
            DoubleConv(narrow, wide) for narrow, wide in pairwise([in_channels, *encoder_channels])
        )
        self.bottleneck = DoubleConv(encoder_channels[-1], bottleneck_channels)
        self.decoder = nn.ModuleList(
            UpBlock(wide, narrow) for wide, narrow in pairwise(reversed(channels))
        )
        self.head = nn.Conv2d(base_channels, num_classes, kernel_size=1)
        # CPUs and GPUs convolve fastest in this layout; the features take it from the weights.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes, H, W) of standardized images (B, in_channels, H, W).

        Raises ValueError where H or W is not a multiple of stem_stride * 2^depth.
        """
        self._check_size(*images.shape[-2:])
        features = self.stem(images)
        skips = []
        for block in self.encoder:
            features = block(features)
            skips.append(features)
            features = F.max_pool2d(features, kernel_size=2)
        features = self.bottleneck(features)
        for block in self.decoder:
            features = block(features, skips.pop())
        logits: Tensor = enlarge(self.head(features), self.architecture["stem_stride"])
        return logits

    def _check_size(self, height: int, width: int) -> None:
        multiple = self.architecture["stem_stride"] * 2 ** self.architecture["depth"]
        if height % multiple or width % multiple:
            raise ValueError(
                f"an image of {height} x {width} pixels does not fit a U-Net of depth "
                f"{self.architecture['depth']}: give multiples of {multiple}"
            )


def stem(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    """A convolution to a grid `stride` times coarser, over 2x2 cells of it around each center."""
    size, padding = 2 * stride, stride // 2
    return nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=padding, bias=False)


def enlarge(features: Tensor, times: int) -> Tensor:
    """Features (B, C, H, W) as (B, C, times * H, times * W), linear between pixel centers."""
    if times == 1:
        return features
    return F.interpolate(features, scale_factor=times, mode="bilinear")


class DoubleConv(nn.Sequential):
    """Twice: 3x3 convolution, normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        # No bias: the normalisation would subtract it.
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            GlobalBatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            GlobalBatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UpBlock(nn.Module):
    """Doubles the resolution, appends the encoder's features of that level, convolves twice."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.conv = DoubleConv(2 * out_channels, out_channels)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Features (B, in, H, W) and skip (B, out, 2H, 2W) -> (B, out, 2H, 2W)."""
        features = enlarge(self.narrow(features), 2)
        joined: Tensor = self.conv(torch.cat([skip, features], dim=1))
        return joined
