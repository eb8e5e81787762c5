"""A trained network and square films in, probabilities of lung out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.errors import BadDataError
from jobs.segmentation.augment import standardize
from jobs.segmentation.checkpoint import from_safetensors
from jobs.segmentation.device import autocast, local_device, most_that_fit
from jobs.segmentation.unet import UNet

T = TypeVar("T")

# The most pixels of a batch, by kind of device. A CPU's caches hold no more: 16 films of 512 x 512
# take a fifth longer per film than 4, and 2 GB. A GPU needs work for all its cores.
PIXELS_AT_ONCE = {"cpu": 2**20, "cuda": 2**24}
# Pixels of a side; the largest --size.
LONGEST_SIDE = 2048
# The most films of a batch: more small films are no faster.
MOST_AT_ONCE = 64
# On a CPU the threads of a network wait for the slowest at the end of each layer. Two batches side
# by side, each on half of the threads, fill these gaps: 24.0 films per second instead of 21.3.
BATCHES_AT_ONCE = 2
THREADS = torch.get_num_threads()


def load_model(weights: bytes, architecture: Mapping[str, int]) -> UNet:
    """The network of `weights` (safetensors), in evaluation mode on this process's device.

    Args:
        architecture: the arguments of UNet, as UNet.architecture holds them.

    Raises BadDataError where the weights are damaged or of another architecture.
    """
    try:
        needed = bytes_of(architecture)
        tensors = from_safetensors(weights)
        if len(weights) < needed:
            raise RuntimeError(f"{len(weights)} bytes of weights for a network of {needed}")
        model = UNet(**architecture)
        _check_types(tensors, model.state_dict())
        model.load_state_dict(tensors)
    except (TypeError, ValueError) as error:
        raise BadDataError(f"model.json names no network of this version: {error}") from error
    except RuntimeError as error:
        raise BadDataError(
            f"the weights do not fit the architecture {dict(architecture)}: give the model.json "
            "that was written beside them"
        ) from error
    return model.eval().to(local_device())


def bytes_of(architecture: Mapping[str, int]) -> int:
    """The bytes of a network's weights, without building it: few words name one of a gigabyte."""
    with torch.device("meta"):
        tensors = UNet(**architecture).state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _check_types(state: Mapping[str, Tensor], of_model: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError, as torch does for shapes, where a weight has another dtype."""
    for name, weight in state.items():
        if name in of_model and weight.dtype != of_model[name].dtype:
            raise RuntimeError(f"{name} is {weight.dtype}, not {of_model[name].dtype}")


@torch.inference_mode()
def probabilities(
    model: UNet, images: NDArray[np.uint8], *, precision: str = "auto"
) -> NDArray[np.float32]:
    """Probability of lung at each pixel, (B, S, S) float32 in [0, 1].

    Args:
        model: from `load_model`.
        images: (B, S, S) uint8; S is the size that the network was trained at.
        precision: as for `jobs.segmentation.device.arithmetic`.
    """
    device = next(model.parameters()).device
    inputs = standardize(torch.from_numpy(images).to(device))
    with autocast(device, precision):
        logits = model(inputs)
    result: NDArray[np.float32] = logits[:, 0].float().sigmoid().cpu().numpy()
    return result


def check_size(architecture: Mapping[str, int], size: object) -> None:
    """Raise BadDataError where a network does not take films of `size` x `size` pixels."""
    multiple = architecture.get("stem_stride", 1) * 2 ** architecture.get("depth", 4)
    if type(size) is not int or not multiple <= size <= LONGEST_SIDE or size % multiple:
        raise BadDataError(
            f"model.json names films of {size!r} pixels a side: a network of this architecture "
            f"takes multiples of {multiple} up to {LONGEST_SIDE}; give the model.json that was "
            "written beside the weights"
        )


def films_at_once(model: UNet, size: int, *, precision: str = "auto") -> int:
    """The fastest number of films of `size` x `size` pixels in a batch on this device.

    On a GPU the number that PIXELS_AT_ONCE allows is halved until its memory holds the films.
    """
    device = local_device()
    most = min(MOST_AT_ONCE, max(1, PIXELS_AT_ONCE[device.type] // size**2))

    def attempt(films: int) -> None:
        probabilities(model, np.zeros((films, size, size), np.uint8), precision=precision)

    return most_that_fit(attempt, most, device)


def batches_at_once(size: int) -> int:
    """The fastest number of batches to compute side by side, of films of `size` x `size` pixels.

    1 on a GPU, which queues the batches; where there is one thread; and where a single film fills a
    batch, since two would take twice its memory.
    """
    kind = local_device().type
    if kind != "cpu" or size**2 > PIXELS_AT_ONCE[kind]:
        return 1
    return min(BATCHES_AT_ONCE, THREADS)


def share_threads(batches: int) -> None:
    """Limit the calling thread to its share of torch's threads, one of `batches` side by side."""
    torch.set_num_threads(max(1, THREADS // batches))


def in_batches(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """The items in order, in the fewest slices of at most `most`, their sizes equal or 1 apart."""
    count = -(-len(items) // most)
    for number in range(count):
        yield items[number * len(items) // count : (number + 1) * len(items) // count]


def probabilities_of_all(
    model: UNet,
    images: NDArray[np.uint8],
    *,
    precision: str = "auto",
    reach: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """As `probabilities`, for any number N of images (N, S, S), by batches that suit the device.

    `reach` gets the number of images done after each batch.
    """
    most = films_at_once(model, images.shape[-1], precision=precision)
    result = np.empty(images.shape, np.float32)
    for batch in in_batches(range(len(images)), most):
        films = slice(batch[0], batch[-1] + 1)
        result[films] = probabilities(model, images[films], precision=precision)
        reach(films.stop)
    return result
