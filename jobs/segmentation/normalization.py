"""Batch normalisation by the statistics of the global batch, whichever ranks hold its slices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jobs.segmentation.distributed import global_sum, world_size


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation (Ioffe and Szegedy, 2015) by the statistics of the global batch.

    In one process this is `nn.BatchNorm2d`. In several processes it computes what one process
    would, on CPUs and GPUs, for slices of any size; `nn.SyncBatchNorm` is for GPUs only.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W), normalised over (B, H, W) of all ranks; the dtype stays."""
        if not self.training or world_size() == 1:
            return super().forward(features)
        count, mean, variance = global_moments(features)
        self._track(count, mean.detach(), variance.detach())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normalized = features * scale[:, None, None] + shift[:, None, None]
        return normalized.to(features.dtype)

    def _track(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Move the running mean (C,) and variance (C,) towards those of a batch."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        # nn.BatchNorm2d normalises by the biased variance and tracks the unbiased one.
        unbiased = variance * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


def global_moments(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count (), mean (C,) and biased variance (C,) over (B, H, W) of all ranks.

    Args:
        features: (B, C, H, W), this rank's slice of the global batch; B may be 0.
    """
    values = features.to(torch.promote_types(features.dtype, torch.float32))
    # Sums in float64: the variance is a difference of two means and would cancel in float32.
    sums = values.sum(dim=(0, 2, 3), dtype=torch.float64)
    squares = values.square().sum(dim=(0, 2, 3), dtype=torch.float64)
    count = sums.new_full((1,), features.numel() // features.shape[1])
    total = global_sum(torch.cat([sums, squares, count]))
    channels = features.shape[1]
    mean, mean_square = (total[:-1] / total[-1]).split(channels)
    variance = (mean_square - mean.square()).clamp_min(0)
    return total[-1].detach(), mean.to(values.dtype), variance.to(values.dtype)
