"""One film and a trained network -> its mask, at the film's own size, wherever one is needed."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.imaging import decode, geometry, masks
from jobs.imaging.geometry import Placement
from jobs.manifest import Row
from jobs.postprocess import MaskRecipe, to_mask
from jobs.segmentation import quality

log = logging.getLogger(__name__)

Film = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Probabilities = NDArray[np.float32]


def load_network(about: Mapping[str, Any], weights: bytes) -> Callable[[Film], Probabilities]:
    """A function of a film (H x W) that returns its probabilities of lung, (S, S) in [0, 1].

    S is the size that model.json names. Threads share it: they resize at once, the network is one.
    """
    # torch takes a second to import, which nothing before the first film need wait for.
    from jobs.segmentation import inference

    model = inference.load_model(weights, about["architecture"])
    place, precision = placer(about["recipe"]), about["recipe"]["precision"]
    network = threading.Lock()

    def probabilities_of(film: Film) -> Probabilities:
        image = place(film).film_to_square(film)[np.newaxis]
        with network:
            (probabilities,) = inference.probabilities(model, image, precision=precision)
        return np.asarray(probabilities)

    return probabilities_of


def placer(recipe: Mapping[str, Any]) -> Callable[[Film], Placement]:
    """Where a film goes in the network's square, and back, by what model.json says of its films."""
    return functools.partial(
        geometry.place,
        size=recipe["spatial_size"],
        fit=recipe.get("fit", geometry.STRETCH),
        crop_borders=recipe.get("crop_borders", False),
    )


def load_predictor(about: Mapping[str, Any], weights: bytes) -> Callable[[Film], Mask]:
    """A function of a film (H x W) that returns its mask (H x W), by what model.json says.

    Threads share it.
    """
    probabilities_of = load_network(about, weights)
    place, recipe = placer(about["recipe"]), MaskRecipe.of(about["recipe"])
    return lambda film: to_mask(place(film).to_film(probabilities_of(film)), recipe)


def build_masker(
    about: Mapping[str, Any], weights: bytes, put: Callable[[str, bytes], Row]
) -> Callable[[str, str, bytes], Row]:
    """A function of a film's id, origin and bytes that returns its row; a bad film's has a reason.

    Threads share it. `put` takes a film's id and its mask (1-bit PNG, H x W of the film) and
    returns what the row says of it. A mask is for review where its quality is below the model's
    `review_below`, or where it is empty.
    """
    probabilities_of = load_network(about, weights)
    place, recipe = placer(about["recipe"]), MaskRecipe.of(about["recipe"])

    def mask_film(film_id: str, origin: str, data: bytes) -> Row:
        row = {"id": film_id, "origin": origin}
        try:
            film = decode.decode_film(data)
        except decode.ImageError as error:
            log.warning("%s: %s", origin, error)
            return row | {"status": "failed", "reason": str(error)}
        probabilities = probabilities_of(film)
        mask = to_mask(place(film).to_film(probabilities), recipe)
        lung, score = masks.lung_fraction(mask), round(quality.score(probabilities), 6)
        return row | {
            "status": "ok",
            "mask": put(film_id, decode.encode_mask(mask)),
            "height": film.shape[0],
            "width": film.shape[1],
            "lung_fraction": round(lung, 6),
            "quality": score,
            "review": lung == 0 or score < recipe.review_below,
        }

    return mask_film


def log_review(count: int, table: str) -> None:
    """Say how many masks are for review, where there are any, and in which table they stand."""
    if count:
        log.warning("%d masks are for review: those with review True in %s", count, table)
