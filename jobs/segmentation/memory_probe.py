"""How many films train at once on a device, found by a step that changes nothing."""

from __future__ import annotations

import logging

import torch
from torch import nn

from jobs.segmentation.device import arithmetic, autocast, most_that_fit
from jobs.segmentation.distributed import alone, global_minimum, is_main, world_size
from jobs.segmentation.fit_config import FitConfig

log = logging.getLogger(__name__)

# What a step holds beside its way through the network: a weight's two moments, and what augmenting
# makes of a pixel (reckoned, not measured).
ADAM_BYTES, AUGMENT_BYTES = 8, 50
# Between several ranks GlobalBatchNorm2d keeps about twice as much as one's own does (reckoned).
SHARED_NORM = 2


def most_films(model: nn.Module, config: FitConfig, share: int, device: torch.device) -> int:
    """The most of `share` films, this rank's of a batch, that go through and back at once.

    The same on every rank, said in the log of the main one. Raises ConfigError where not even one
    film fits.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    beside = ADAM_BYTES * weights + AUGMENT_BYTES * share * config.size**2
    times = SHARED_NORM if world_size() > 1 else 1

    def attempt(films: int) -> None:
        with alone(), torch.random.fork_rng(devices=[]):
            held = torch.empty(beside, dtype=torch.uint8, device=device)
            images = torch.randn(times * films, 1, config.size, config.size)
            with autocast(device, config.precision):
                logits = model(images.to(device))
            logits.float().sum().backward()
            del held
        model.zero_grad()

    model.eval()  # the statistics stay as they are
    films = global_minimum(most_that_fit(attempt, share, device), device)
    model.train()
    if is_main():
        log.info(
            "training on %s in %s, %d processes, %s at once",
            device,
            str(arithmetic(device, config.precision)).removeprefix("torch."),
            world_size(),
            f"{films} films" if films == share else f"{films} of {share} films",
        )
    return films
