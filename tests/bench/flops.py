"""Count the floating-point operations of a network; a multiply-add counts as two."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def gflops_per_film(network: nn.Module, size: int) -> float:
    """GFLOP of the convolutions in a forward pass of one film of `size` x `size` pixels."""
    was_training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, size, size))
    network.train(was_training)
    return counter.get_total_flops() / 1e9


def gflops_of_training(network: nn.Module, size: int) -> float:
    """GFLOP of the convolutions in a forward and a backward pass of one film."""
    with FlopCounterMode(display=False) as counter:
        # Two films: batch normalisation raises if one film has a single pixel at the lowest level.
        network(torch.zeros(2, 1, size, size)).sum().backward()
    return counter.get_total_flops() / 2e9
