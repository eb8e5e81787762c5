"""The Dice loss: value, gradient, refusal of other shapes, and the same over several ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jobs.segmentation.distributed import rank, world_size
from jobs.segmentation.losses import all_lung_loss, dice_loss
from tests.support.ranks import run_ranks

CERTAIN = 20.0


def target_of(lung_fraction: float, films: int = 2, side: int = 32) -> torch.Tensor:
    target = torch.zeros(films, 1, side, side)
    target[..., : round(side * lung_fraction), :] = 1
    return target


def test_a_perfect_mask_costs_nothing_and_an_inverted_one_everything() -> None:
    target = target_of(0.25)
    assert dice_loss((2 * target - 1) * CERTAIN, target) < 1e-3
    assert dice_loss((1 - 2 * target) * CERTAIN, target) > 0.99


def test_the_loss_is_that_computed_by_hand() -> None:
    logits = torch.tensor([0.0, 0.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    # p = 1/2 everywhere: 1 - (2 * 1/2 + 1) / (2 + 1 + 1)
    assert dice_loss(logits, target).item() == pytest.approx(0.5)


def test_sums_run_over_the_batch_and_not_film_by_film() -> None:
    large, empty = target_of(0.5, films=1), target_of(0.0, films=1)
    logits = torch.cat([large, large]) * 2 * CERTAIN - CERTAIN
    loss = dice_loss(logits, torch.cat([large, empty]))
    # 512 of 512 pixels right and 512 more wrong: 1 - (2 * 512 + 1) / (1024 + 512 + 1)
    assert loss.item() == pytest.approx(1 - 1025 / 1537, abs=1e-5)


@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 2, 32, 32), (1, 1, 32, 32), (2, 1, 32, 1)])
def test_other_shapes_are_refused_and_both_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as error:
        dice_loss(torch.zeros(2, 1, 32, 32), torch.zeros(shape))
    assert "(2, 1, 32, 32)" in str(error.value) and str(shape) in str(error.value)


def test_the_gradient_is_the_finite_difference() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    target = (torch.rand(2, 1, 4, 4) > 0.5).double()
    assert torch.autograd.gradcheck(lambda logits: dice_loss(logits, target), logits)


def test_bfloat16_logits_are_summed_in_float32_also_under_autocast() -> None:
    target = target_of(0.25, films=4, side=64)
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = dice_loss(logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(dice_loss(logits.double(), target).item(), abs=1e-6)


@pytest.mark.parametrize("lung_fraction", [0.125, 0.25, 0.75])
def test_the_all_lung_loss_is_that_of_a_network_that_calls_every_pixel_lung(
    lung_fraction: float,
) -> None:
    target = target_of(lung_fraction, side=64)
    loss = dice_loss(torch.full_like(target, CERTAIN), target).item()
    assert all_lung_loss(lung_fraction) == pytest.approx(loss, abs=1e-3)


def loss_and_gradient(films: int) -> tuple[float, NDArray[np.float64]]:
    """Of this rank's slice of a batch, with the gradient averaged over the ranks as DDP does."""
    torch.manual_seed(films)
    images, weight = torch.randn(films, 1, 8, 8, dtype=torch.float64), torch.ones(2).double()
    target = (torch.rand(films, 1, 8, 8) > 0.7).double()
    weight.requires_grad_()
    part = slice(rank(), None, world_size())
    loss = dice_loss(weight[0] * images[part] + weight[1], target[part])
    loss.backward()
    assert weight.grad is not None
    if world_size() > 1:
        torch.distributed.all_reduce(weight.grad)
    return loss.item(), (weight.grad / world_size()).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "films"), [(2, 4), (2, 5), (3, 5), (3, 2)])
def test_slices_of_any_size_give_the_loss_and_gradient_of_the_whole(
    processes: int, films: int
) -> None:
    loss, gradient = loss_and_gradient(films)
    for ranks_loss, ranks_gradient in run_ranks(loss_and_gradient, processes, films):
        assert ranks_loss == pytest.approx(loss, abs=1e-14)
        np.testing.assert_allclose(ranks_gradient, gradient, rtol=0, atol=1e-14)
