"""A network of the project's architecture and cost, with weights that mark dark pixels as lung.

It needs no training. Its masks resemble those of a trained network, two smooth lungs, so that
post-processing and encoding cost as much as on real masks.
"""

from __future__ import annotations

import json

import torch
from torch import nn

from jobs.segmentation import checkpoint
from jobs.segmentation.fit_config import NETWORKS
from jobs.segmentation.unet import UNet
from jobs.settings.config import TrainConfig
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.work_folder import WorkFolder

# The slope of the logits, and how far below the film's mean, in standard deviations, lung begins.
STEEPNESS, DARKNESS = 12.0, 0.3
# The two lungs, and air beside the chest and in the bowel, which is as dark as the lungs.
COMPONENTS = 8


def dark_lung(network: str) -> UNet:
    """A network of NETWORKS with random weights, except in the one channel that the head reads."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = UNet(**NETWORKS[network])
        _average_channel_0(model.stem, -1.0)
        _average_all(model.encoder[0])
        _average_all(model.decoder[-1].conv)
        model.head.weight.zero_()
        model.head.weight[0, 0] = STEEPNESS
        assert model.head.bias is not None
        model.head.bias.fill_(-STEEPNESS * DARKNESS)
    return model.eval()


def _average_channel_0(convolution: nn.Module, total: float) -> None:
    """Make output channel 0 the mean of input channel 0 over the kernel, times `total`."""
    weight = convolution.weight
    assert isinstance(weight, torch.Tensor)
    weight[0].zero_()
    weight[0, 0] = total / weight[0, 0].numel()


def _average_all(block: nn.Module | torch.Tensor) -> None:
    assert isinstance(block, nn.Module)
    for layer in block.children():
        if isinstance(layer, nn.Conv2d):
            _average_channel_0(layer, 1.0)


def write_trained(store: Store, out: str, network: str, size: int, precision: str) -> Manifest:
    """Write the network of `dark_lung` as the job train would; return its manifest."""
    model = dark_lung(network)
    recipe = {
        "spatial_size": size,
        "fit": "stretch",
        "crop_borders": False,
        "precision": precision,
        "threshold": 0.5,
        "largest_components": COMPONENTS,
        "fill_holes": True,
        "review_below": 0.0,
    }
    model_json = {"architecture": model.architecture, "recipe": recipe}
    config = TrainConfig(out=out, processed=f"{out}/manifest.json", network=network)
    extra = {"size": size, "precision": precision, "network": "dark lung"}
    work = WorkFolder(store, config, job="train", folder="trained", recipe="bench", extra=extra)
    if finished := work.finished():
        return finished
    work.add_file("model.json", json.dumps(model_json).encode())
    work.add_file("model.safetensors", checkpoint.to_safetensors(model.state_dict()))
    return work.finish(counts={}, headline={})
