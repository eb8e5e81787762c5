"""Batch normalisation over several ranks: the gradients and statistics of one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from jobs.segmentation.distributed import data_parallel, rank, world_size
from jobs.segmentation.losses import dice_loss
from jobs.segmentation.normalization import GlobalBatchNorm2d
from jobs.segmentation.unet import UNet
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SLOW = pytest.mark.slow


def training_step(films: int, native: bool) -> dict[str, NDArray[np.float64]]:
    """Gradients, statistics and loss, float64, after one step on this rank's slice of a batch."""
    torch.manual_seed(films)
    images, target = torch.randn(films, 1, 16, 16).double(), torch.rand(films, 1, 16, 16) > 0.6
    model = UNet(base_channels=4, depth=2).double()
    if native:
        for module in model.modules():
            if isinstance(module, GlobalBatchNorm2d):
                module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    part = slice(rank(), None, world_size())
    network = data_parallel(model, CPU)
    loss = dice_loss(network(images[part]), target[part])
    loss.backward()
    tensors = {"loss": loss.detach()} | dict(model.named_buffers())
    tensors |= {f"d/d {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("processes", "films"),
    [(3, 5), *(pytest.param(*sizes, marks=SLOW) for sizes in [(2, 5), (2, 3), (3, 3), (3, 2)])],
)
def test_ranks_give_the_gradients_and_statistics_of_one_process(processes: int, films: int) -> None:
    alone = training_step(films, native=True)
    assert len(alone) == 1 + 3 * 10 + 3 * 10 + 2 * 2 + 2
    for tensors in run_ranks(training_step, processes, films, False):
        for name, expected in alone.items():
            np.testing.assert_allclose(tensors[name], expected, rtol=0, atol=1e-12, err_msg=name)


def local_statistics(films: int) -> float:
    """The largest error of a gradient when each rank normalises by its own slice."""
    exact = training_step(films, native=False)
    local = training_step(films, native=True)
    return max(float(abs(local[name] - exact[name]).max()) for name in exact if "d/d" in name)


@SLOW
def test_local_statistics_would_be_far_off() -> None:
    assert min(run_ranks(local_statistics, 2, 4)) > 1e-3
