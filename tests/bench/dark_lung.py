"""A network of the project's architecture and cost whose weights call dark what is lung.

Its masks are those of a trained one in kind, two smooth lungs, so that what is done to them costs
what it costs; and no bench waits for a training.
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

STEEPNESS, DARKNESS = 12.0, 0.3  # of the logits, and below the mean what counts as lung
COMPONENTS = 8  # the lungs and, as dark as these, the air beside the chest and in the bowel


def dark_lung(network: str) -> UNet:
    """`network` of NETWORKS with random weights, but for the one channel that the head reads."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = UNet(**NETWORKS[network])
        _only(model.stem, -1.0)
        _average(model.encoder[0])
        _average(model.decoder[-1].conv)
        model.head.weight.zero_()
        model.head.weight[0, 0] = STEEPNESS
        assert model.head.bias is not None
        model.head.bias.fill_(-STEEPNESS * DARKNESS)
    return model.eval()


def _only(convolution: nn.Module, total: float) -> None:
    """Make channel 0 the mean over the kernel of channel 0, times `total`."""
    weight = convolution.weight
    assert isinstance(weight, torch.Tensor)
    weight[0].zero_()
    weight[0, 0] = total / weight[0, 0].numel()


def _average(block: nn.Module | torch.Tensor) -> None:
    assert isinstance(block, nn.Module)
    for layer in block.children():
        if isinstance(layer, nn.Conv2d):
            _only(layer, 1.0)


def write_trained(store: Store, out: str, network: str, size: int, precision: str) -> Manifest:
    """The manifest of such a network, as the job train leaves one."""
    model = dark_lung(network)
    recipe = {"spatial_size": size, "precision": precision, "threshold": 0.5}
    cleaning = {"largest_components": COMPONENTS, "fill_holes": True}
    about = {"architecture": model.architecture, "recipe": recipe | cleaning}
    config = TrainConfig(out=out, processed=f"{out}/manifest.json", network=network)
    extra = {"size": size, "precision": precision, "network": "dark lung"}
    stage = WorkFolder(store, config, job="train", folder="trained", recipe="bench", extra=extra)
    if found := stage.finished():
        return found
    stage.add_file("model.json", json.dumps(about).encode())
    stage.add_file("model.safetensors", checkpoint.to_safetensors(model.state_dict()))
    return stage.finish(counts={}, headline={})
