"""One film and a trained network -> its mask, at the film's own size, wherever one is needed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.imaging import decode, geometry, masks
from jobs.manifest import Row

log = logging.getLogger(__name__)


def load_predictor(
    about: Mapping[str, Any], weights: bytes
) -> Callable[[NDArray[np.uint8]], NDArray[np.bool_]]:
    """A function of a film (H x W) that returns its mask (H x W), by what model.json says.

    Threads share it: they resize at once, the network is one.
    """
    # torch takes a second to import, which nothing before the first film need wait for.
    from jobs.segmentation import inference

    model = inference.load_model(weights, about["architecture"])
    recipe = about["recipe"]
    size, threshold, precision = (recipe[n] for n in ("spatial_size", "threshold", "precision"))
    network = threading.Lock()

    def predict(film: NDArray[np.uint8]) -> NDArray[np.bool_]:
        image = geometry.resize_film(film, size)[np.newaxis]
        with network:
            probabilities = inference.probabilities(model, image, precision=precision)[0]
        mask: NDArray[np.bool_] = (
            geometry.restore_probabilities(probabilities, *film.shape) >= threshold
        )
        return mask

    return predict


def build_masker(
    about: Mapping[str, Any], weights: bytes, put: Callable[[str, bytes], Row]
) -> Callable[[str, str, bytes], Row]:
    """A function of a film's id, origin and bytes that returns its row; a bad film's has a reason.

    Threads share it. `put` takes a film's id and its mask (1-bit PNG, H x W of the film) and
    returns what the row says of it.
    """
    predict = load_predictor(about, weights)

    def mask_film(film_id: str, origin: str, data: bytes) -> Row:
        row = {"id": film_id, "origin": origin}
        try:
            film = decode.decode_film(data)
        except decode.ImageError as error:
            log.warning("%s: %s", origin, error)
            return row | {"status": "failed", "reason": str(error)}
        mask = predict(film)
        height, width = film.shape
        return row | {
            "status": "ok",
            "mask": put(film_id, decode.encode_mask(mask)),
            "height": height,
            "width": width,
            "lung_fraction": round(masks.lung_fraction(mask), 6),
        }

    return mask_film
