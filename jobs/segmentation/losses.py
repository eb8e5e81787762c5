"""The soft Dice loss of the global batch, and that of a network that calls every pixel lung."""

from __future__ import annotations

import torch
from torch import Tensor

from jobs.segmentation.distributed import global_sum

# Pixels added to both sums: keeps the loss finite on empty masks, and is negligible for a lung.
SMOOTH = 1.0


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s), over all pixels of all ranks (Milletari, 2016).

    p is the sigmoid of the logits, in float32 at least, whatever dtype the network ran in. The sums
    run over the whole batch, so a film with little lung has little weight.

    Args:
        logits: (B, 1, H, W), any float.
        target: (B, 1, H, W), 0 or 1.

    Returns:
        (), in [0, 1], the same on every rank.

    Raises ValueError where the shapes differ: broadcasting would compare different films.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape: give "
            "both as (B, 1, H, W)"
        )
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
        target = target.to(probabilities.dtype)
        intersection = (probabilities * target).sum()
        overlap, total = global_sum(torch.stack([2 * intersection, (probabilities + target).sum()]))
        loss: Tensor = 1 - (overlap + SMOOTH) / (total + SMOOTH)
        return loss


def all_lung_loss(lung_fraction: float) -> float:
    """The Dice loss of calling every pixel lung where the share `lung_fraction` (0..1) is lung."""
    return 1 - 2 * lung_fraction / (1 + lung_fraction)
