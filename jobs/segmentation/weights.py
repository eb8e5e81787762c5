"""Weights put into a network: of the same architecture, in float32 or float16."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from jobs.errors import BadDataError
from jobs.segmentation.checkpoint import from_safetensors
from jobs.segmentation.unet import UNet


def load_weights(model: UNet, weights: bytes) -> None:
    """Put weights (safetensors) of the same architecture into a network, float16 ones as float32.

    Raises BadDataError where they are damaged or of another architecture.
    """
    own, tensors = model.state_dict(), from_safetensors(weights)
    try:
        widened = {name: _as_in(own, name, tensor) for name, tensor in tensors.items()}
        model.load_state_dict(widened)
    except RuntimeError as error:
        raise of_another_network(model.architecture) from error


def of_another_network(architecture: Mapping[str, int]) -> BadDataError:
    """The error where weights are not of the architecture."""
    return BadDataError(
        f"the weights do not fit the architecture {dict(architecture)}: give the model.json that "
        "was written beside them"
    )


def least_bytes_of(architecture: Mapping[str, int]) -> int:
    """The bytes of a network's weights in float16, without building it.

    Few words of a model.json name a network of a gigabyte.
    """
    with torch.device("meta"):
        tensors = UNet(**architecture).state_dict().values()
    return sum(
        tensor.numel() * (2 if tensor.is_floating_point() else tensor.element_size())
        for tensor in tensors
    )


def _as_in(own: Mapping[str, Tensor], name: str, weight: Tensor) -> Tensor:
    """The weight in the network's dtype; RuntimeError, as torch's for shapes, for another one."""
    if name not in own or weight.dtype == own[name].dtype:
        return weight
    if weight.dtype == torch.float16 and own[name].dtype == torch.float32:
        return weight.float()
    raise RuntimeError(f"{name} is {weight.dtype}, not {own[name].dtype}")
