"""Ranks: their sums, the gradients of these sums, and a process that is not one of several."""

from __future__ import annotations

import torch

from jobs.segmentation import distributed
from tests.support.ranks import run_ranks


def ranks_and_sum() -> tuple[int, int, bool, list[float], list[float]]:
    """(rank, ranks, main, 3^rank summed over the ranks, gradient of the squares of that sum)."""
    addend = torch.tensor([3.0 ** distributed.rank()], dtype=torch.float64, requires_grad=True)
    total = distributed.global_sum(addend)
    total.square().sum().backward()
    assert addend.grad is not None
    return (
        distributed.rank(),
        distributed.world_size(),
        distributed.is_main(),
        total.tolist(),
        addend.grad.tolist(),
    )


def test_a_sum_and_its_gradient_run_over_the_ranks() -> None:
    total = 1 + 3 + 9
    # Each of three ranks squares the sum, and each of their losses depends on each addend.
    gradient = 3 * 2 * total
    for rank, result in enumerate(run_ranks(ranks_and_sum, 3)):
        assert result == (rank, 3, rank == 0, [total], [gradient])


def test_a_process_alone_is_main_and_sums_itself() -> None:
    distributed.init()
    assert ranks_and_sum() == (0, 1, True, [1.0], [2.0])
    distributed.shutdown()
