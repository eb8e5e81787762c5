"""Probes how many films train at once in a device's memory, by a step that changes nothing."""

from __future__ import annotations

import logging

import torch
from torch import nn

from jobs.segmentation.device import autocast, most_that_fit
from jobs.segmentation.distributed import global_minimum, is_main, world_size
from jobs.segmentation.fit_config import FitConfig

log = logging.getLogger(__name__)

# Bytes of a training step that the probe does not allocate by itself, estimated, not measured: two
# moments of AdamW per weight, and augmentation per pixel.
ADAM_BYTES, AUGMENT_BYTES = 8, 50
# GlobalBatchNorm2d over several ranks keeps about twice the memory of batch normalisation in one
# process (estimated, not measured).
GLOBAL_NORM_FACTOR = 2


def most_films(model: nn.Module, config: FitConfig, share: int, device: torch.device) -> int:
    """The most films, of the `share` of a batch that one rank has, that train at once.

    It is the same on every rank, and the main rank logs it. The model is left in training mode,
    its weights and statistics unchanged.

    Raises ConfigError where not even one film fits.
    """
    # In evaluation mode the statistics stay, and normalisation sums nothing over the ranks: where
    # one rank runs out of memory and tries again, no other waits for it.
    model.eval()
    films = most_that_fit(lambda films: _step(model, config, films, share, device), share, device)
    films = global_minimum(films, device)
    model.train()
    if is_main():
        log.info("%s at once", f"{films} films" if films == share else f"{films} of {share} films")
    return films


def _step(
    model: nn.Module, config: FitConfig, films: int, share: int, device: torch.device
) -> None:
    """Forward and backward of `films` random films; holds what else a training step holds.

    Raises torch.OutOfMemoryError where that does not fit.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    other_bytes = ADAM_BYTES * weights + AUGMENT_BYTES * share * config.size**2
    factor = GLOBAL_NORM_FACTOR if world_size() > 1 else 1
    with torch.random.fork_rng(devices=[]):
        held = torch.empty(other_bytes, dtype=torch.uint8, device=device)
        images = torch.randn(factor * films, 1, config.size, config.size)
        with autocast(device, config.precision):
            logits = model(images.to(device))
        logits.float().sum().backward()
        del held
    model.zero_grad()
