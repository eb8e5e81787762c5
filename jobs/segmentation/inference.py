"""A trained network on films: probabilities of lung."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.errors import BadDataError
from jobs.segmentation.augment import standardize
from jobs.segmentation.checkpoint import from_safetensors
from jobs.segmentation.device import autocast, local_device
from jobs.segmentation.unet import UNet


def load_model(weights: bytes, architecture: Mapping[str, int]) -> UNet:
    """The network of `weights` (safetensors), ready to predict on this process's device.

    Args:
        architecture: the arguments of UNet, as UNet.architecture holds them.

    Raises BadDataError when the weights are damaged or of another architecture.
    """
    model = UNet(**architecture)
    try:
        model.load_state_dict(from_safetensors(weights))
    except RuntimeError as error:
        raise BadDataError(
            f"the weights do not fit the architecture {dict(architecture)}: give the model.json "
            "that was written beside them"
        ) from error
    return model.eval().to(local_device())


@torch.inference_mode()
def probabilities(
    model: UNet, images: NDArray[np.uint8], *, precision: str = "auto"
) -> NDArray[np.float32]:
    """Probability of lung at each pixel, (B, S, S) float32 in [0, 1].

    Args:
        model: from `load_model`.
        images: (B, S, S) uint8, S the size that the network was trained at.
        precision: "float32", "bfloat16" or "auto".
    """
    device = next(model.parameters()).device
    inputs = standardize(torch.from_numpy(images).to(device))
    with autocast(device, precision):
        logits = model(inputs)
    result: NDArray[np.float32] = logits[:, 0].float().sigmoid().cpu().numpy()
    return result
