"""Floating-point operations of a network, two a multiplication with its addition."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def gflops_per_film(network: nn.Module, size: int) -> float:
    """Billions of operations of the convolutions for one film of `size` pixels, forward."""
    was_training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, size, size))
    network.train(was_training)
    return counter.get_total_flops() / 1e9


def gflops_of_training(network: nn.Module, size: int) -> float:
    """The same for one film forward and backward."""
    with FlopCounterMode(display=False) as counter:
        # Two films, because a batch normalisation refuses one where a single pixel is left of it.
        network(torch.zeros(2, 1, size, size)).sum().backward()
    return counter.get_total_flops() / 2e9
