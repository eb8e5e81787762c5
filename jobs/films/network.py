"""A trained network with what its model.json says of films and masks: films in, masks out.

Importing this loads torch, which takes seconds: jobs import it once they know that there is work.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from jobs.films.postprocess import MaskRecipe, clean
from jobs.imaging.geometry import Placement, Placing
from jobs.runtime.profile import timed
from jobs.segmentation import inference
from jobs.segmentation.device import log_device

log = logging.getLogger(__name__)

T = TypeVar("T")
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Probabilities = NDArray[np.float32]


class Network:
    """A trained U-Net, the placing of its films and its mask recipe; threads share it.

    Args:
        model_json: the content of model.json: "architecture" and "recipe".
        weights: the content of model.safetensors.

    Raises BadDataError where the weights are damaged, of another architecture, or
    where this does not take films of the size.
    """

    def __init__(self, model_json: Mapping[str, Any], weights: bytes) -> None:
        recipe = model_json["recipe"]
        self._model = inference.load_model(weights, model_json["architecture"])
        inference.check_size(model_json["architecture"], recipe["spatial_size"])
        self._precision = recipe["precision"]
        log_device(self._precision)
        self.placing = Placing(recipe["spatial_size"], recipe["fit"], recipe["crop_borders"])
        self.recipe = MaskRecipe.of(recipe)

    def place(self, film: Pixels, *, is_placed: bool = False) -> Placement:
        """Where a film (H, W) lies in the square (S, S) of this network.

        `is_placed`: the film is a square of preprocess already, only its size may differ.
        """
        placing = Placing(self.placing.size) if is_placed else self.placing
        return placing.place(film)

    def probabilities(self, squares: Sequence[Pixels]) -> Probabilities:
        """Probabilities of lung (B, S, S) in [0, 1] of one or more squares (S, S).

        The last bits may depend on B, since the fastest kernel depends on it.
        """
        with timed("compute"):
            return inference.probabilities(
                self._model, np.stack(squares), precision=self._precision
            )

    def mask(self, probabilities: Probabilities, placement: Placement) -> Mask:
        """The mask (H, W) of the film from the probabilities (S, S) of its square."""
        # The film's probabilities, 4 bytes a pixel, are freed before the mask is cleaned.
        above = np.asarray(placement.to_film(probabilities) >= self.recipe.threshold)
        return clean(above, self.recipe)

    def predict(self, film: Pixels, *, is_placed: bool = False) -> Mask:
        """The mask (H, W) of a film (H, W); `is_placed` as for `place`."""
        placement = self.place(film, is_placed=is_placed)
        (probabilities,) = self.probabilities([placement.film_to_square(film)])
        return self.mask(probabilities, placement)

    def in_batches(self, films: Sequence[T]) -> Iterator[Sequence[T]]:
        """The films in even batches of at most `films_at_once`."""
        return inference.in_batches(films, self.films_at_once)

    @functools.cached_property
    def batches_at_once(self) -> int:
        """How many batches to compute side by side."""
        return inference.batches_at_once(self.placing.size)

    def share_cores(self) -> None:
        """Limit the calling thread's torch threads to its share of the batches side by side."""
        if self.batches_at_once > 1:
            inference.share_threads(self.batches_at_once)

    @functools.cached_property
    def films_at_once(self) -> int:
        """The largest batch, by the square's size and the device."""
        size = self.placing.size
        films = inference.films_at_once(self._model, size, precision=self._precision)
        log.info("%d films of %d x %d pixels at once", films, size, size)
        return films


def load_network(
    model_json: Mapping[str, Any], weights: bytes
) -> Callable[[Pixels], Probabilities]:
    """A function from a film placed by preprocess to its probabilities of lung, (S, S) in [0, 1].

    S is the size that model.json names.
    """
    network = Network(model_json, weights)

    def probabilities(film: Pixels) -> Probabilities:
        square = network.place(film, is_placed=True).film_to_square(film)
        batch = network.probabilities([square])
        return np.asarray(batch[0])

    return probabilities


def load_predictor(model_json: Mapping[str, Any], weights: bytes) -> Callable[[Pixels], Mask]:
    """A function from a film, uint8 (H, W), to its lung mask, bool (H, W)."""
    network = Network(model_json, weights)

    def predict(film: Pixels) -> Mask:
        return network.predict(film)

    return predict
