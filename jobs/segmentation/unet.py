"""The U-Net of Ronneberger, Fischer and Brox (2015), with batch normalisation and padding.

Most of its work would be at full resolution, where a lung's border is all there is to see. So a
strided convolution may come before it and a linear enlargement of the logits after it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.segmentation.distributed import global_sum, world_size


class UNet(nn.Module):
    """Halves the image `depth` times and doubles the channels each time, then back up with skips.

    Args:
        in_channels: channels of the image.
        num_classes: channels of the logits, one a class against the rest.
        base_channels: channels of the first level.
        depth: times the first level is halved.
        stem_stride: pixels of the image, along each side, to one of the first level.

    The image's sides are multiples of stem_stride * 2^depth.
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
        # The layout that CPUs and GPUs convolve fastest in; the features take it from the weights.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes, H, W) of images (B, in_channels, H, W), standardized.

        Raises ValueError when H or W is not a multiple of stem_stride * 2^depth.
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
    """A convolution to a grid `stride` times coarser, over 2x2 of its cells about each center."""
    size, padding = 2 * stride, stride // 2
    return nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=padding, bias=False)


def enlarge(features: Tensor, times: int) -> Tensor:
    """Features (B, C, H, W) as (B, C, times H, times W), linear between the centers of pixels."""
    if times == 1:
        return features
    return F.interpolate(features, scale_factor=times, mode="bilinear")


class DoubleConv(nn.Sequential):
    """Twice: 3x3 convolution, normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        # No bias: the normalisation would subtract it again.
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            GlobalBatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            GlobalBatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UpBlock(nn.Module):
    """Doubles the resolution, joins the encoder's features of that resolution, convolves twice."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.conv = DoubleConv(2 * out_channels, out_channels)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        features = enlarge(self.narrow(features), 2)
        joined: Tensor = self.conv(torch.cat([skip, features], dim=1))
        return joined


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation (Ioffe and Szegedy, 2015) by the statistics of the global batch.

    In one process this is `nn.BatchNorm2d`. In several it is what one process would compute, on
    CPUs as on GPUs, for slices of any size; `nn.SyncBatchNorm` is for GPUs only.
    """

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(features)
        count, mean, variance = global_moments(features)
        self._track(count, mean.detach(), variance.detach())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normalized = features * scale[:, None, None] + shift[:, None, None]
        return normalized.to(features.dtype)

    def _track(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


def global_moments(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count (), mean (C,) and biased variance (C,) over (B, H, W) of all ranks.

    Args:
        features: (B, C, H, W), this rank's slice of the global batch; B may be 0.
    """
    values = features.to(torch.promote_types(features.dtype, torch.float32))
    # In float64, so that the mean of the squares less the square of the mean loses nothing.
    sums = values.sum(dim=(0, 2, 3), dtype=torch.float64)
    squares = values.square().sum(dim=(0, 2, 3), dtype=torch.float64)
    count = sums.new_full((1,), features.numel() // features.shape[1])
    total = global_sum(torch.cat([sums, squares, count]))
    channels = features.shape[1]
    mean, mean_square = (total[:-1] / total[-1]).split(channels)
    variance = (mean_square - mean.square()).clamp_min(0)
    return total[-1].detach(), mean.to(values.dtype), variance.to(values.dtype)
