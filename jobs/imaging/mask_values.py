"""Which pixels of a mask are lung: those of the values that the user names, or the brighter of two.

A mask of more values does not say which are lung: it may be a label map, organs in colors, or a
film that is cut out by its mask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.imaging import lung_shape, mask_levels
from jobs.imaging.mask_grays import find_grays
from jobs.imaging.mask_levels import Level, Samples, Value

# Reasons for quarantine; details follow after a colon.
SEVERAL, INVERTED, ABSENT = "several values", "inverted", "no value of --mask-values"
MANY = "many gray values inside"
# Beside 0 and 255 this gray means "ignore": it is not lung.
IGNORED = 127
# The values of a mask of 1 bit, with their other names.
ONE_BIT: dict[bool, tuple[Value, ...]] = {
    False: (0, (0, 0, 0)),
    True: (255, 1, (255, 255, 255)),
}


class MaskValuesError(ValueError):
    """A mask whose lungs cannot be told from its values; the message is a reason as above."""


class Lungs(NamedTuple):
    """The lung pixels of a mask, bool (H, W), and which of the named values it has."""

    pixels: NDArray[np.bool_]
    named: tuple[Value, ...]


def parse(text: str) -> tuple[Value, ...]:
    """The values of --mask-values, such as "1,2" or "#ff0000"; () for ""."""
    return tuple(_value(name) for name in text.split(",")) if text else ()


def names_in(reason: str) -> list[str]:
    """The names of the values in a reason for quarantine, in their order."""
    return re.findall(r"(#[0-9a-f]{6}|\d+) \(", reason)


def find_lungs(samples: Samples, named: Sequence[Value] = ()) -> Lungs:
    """The lungs of a mask from its samples: bool, uint8 or uint16 (H, W), or BGR uint8 (H, W, 3).

    With `named` values, lung is what has one of them or is, where a mask is resized or lossy,
    nearer to one of them than to any other level. Otherwise lung is above half of the file's
    maximum, or above the mean of two levels that are both above that half; the value of a color is
    its strongest channel.

    Raises MaskValuesError for a mask with three levels or more, but for 127 beside 0 and 255, and
    with two colors that are both bright, and with many gray values away from its edges, unless
    values are named; and for one with several levels of which none is named.
    """
    if samples.dtype == np.bool_:
        return _lungs_of_one_bit(samples, named) if named else Lungs(samples, ())
    if samples.ndim == 3 and _is_gray(mask_levels.thinned(samples)):
        samples = _strongest(samples)
    levels = mask_levels.find_levels(samples)
    if named:
        return _named_lungs(samples, levels, named)
    strongest = _strongest(samples)
    half = int(strongest.max()) // 2
    strengths = [mask_levels.strength(level.value) for level in levels]
    are_bright = len(levels) == 2 and min(strengths) > half
    if _is_ambiguous(levels) or (are_bright and samples.ndim == 3):
        raise MaskValuesError(f"{SEVERAL}: {_listed(levels)}; choose with --mask-values")
    # A gray that is cut off as background is none of the mask's own, but for "ignore".
    known = [value for value in strengths if value > half or len(levels) == 3]
    if grays := find_grays(strongest, known):
        raise MaskValuesError(
            f"{MANY}: {grays.darkest} to {grays.brightest}, away from edges, on "
            f"{100 * grays.share:.1f} % of the frame; choose with --mask-values"
        )
    return Lungs(strongest > (sum(strengths) // 2 if are_bright else half), ())


def check_not_inverted(samples: Samples, lungs: NDArray[np.bool_]) -> None:
    """Raise MaskValuesError where the `lungs` of a mask's samples have the shape of background."""
    if not lung_shape.is_inverted(lungs):
        return
    thinned, outside = mask_levels.thinned(samples), mask_levels.thinned(lungs)
    values = [_commonest(thinned[part]) for part in (outside, ~outside)]
    if isinstance(values[1], int) and values[1] <= mask_levels.ringing(thinned.astype(np.uint16)):
        values[1] = 0
    shares = outside.mean(), 1 - outside.mean()
    outer, inner = (Level(*item) for item in zip(values, shares, strict=True))
    remedy = f"give --mask-values {mask_levels.name_of(inner.value)}"
    if lung_shape.share_of_rim(~lungs) > lung_shape.OPEN_RIM:
        remedy = "the border of the film has the value of the lungs: paint it otherwise"
    raise MaskValuesError(f"{INVERTED}: {outer} surrounds {inner}; {remedy}")


def _value(name: str) -> Value:
    if not name.startswith("#"):
        return int(name)
    red, green, blue = bytes.fromhex(name[1:])
    return red, green, blue


def _lungs_of_one_bit(samples: NDArray[np.bool_], named: Sequence[Value]) -> Lungs:
    share = float(samples.mean())
    present = [bit for bit, part in ((False, 1 - share), (True, share)) if part]
    lung = [bit for bit in present if set(ONE_BIT[bit]) & set(named)]
    if not lung and len(present) == 2:
        raise _absent([Level(0, 1 - share), Level(255, share)])
    found = tuple(value for value in named if any(value in ONE_BIT[bit] for bit in lung))
    return Lungs(np.isin(samples, lung), found)


def _named_lungs(samples: Samples, levels: Sequence[Level], named: Sequence[Value]) -> Lungs:
    present = mask_levels.distinct_values(samples)
    meant = {value: _meant(value, samples, levels, present) for value in named}
    found = tuple(value for value, match in meant.items() if match is not None)
    lung = {match for match in meant.values() if match is not None}
    if not lung and len(present) > 1:
        raise _absent(levels or [Level(value, 0.0) for value in present[:2]])
    if not lung:
        return Lungs(np.zeros(samples.shape[:2], np.bool_), ())
    others = [level.value for level in levels if level.value not in lung]
    if len(present) <= mask_levels.FEW_VALUES:
        slack, main = mask_levels.ringing(samples), [*lung, *others]
        others += [
            value
            for value in present
            if all(mask_levels.distance(value, item) > slack for item in main)
        ]
    values = [*lung, *others]
    return Lungs(mask_levels.nearest(samples, values) < len(lung), found)


def _meant(
    named: Value, samples: Samples, levels: Sequence[Level], present: Sequence[Value]
) -> Value | None:
    """The value of the mask that is named: this value, or the level that it is a ringing of."""
    value = _as_in(samples, named)
    if value is None or (value in present and len(present) <= mask_levels.FEW_VALUES):
        return value
    near = [
        level.value
        for level in levels
        if mask_levels.distance(level.value, value) <= mask_levels.ringing(samples)
    ]
    if near:
        return min(near, key=lambda level: mask_levels.distance(level, value))
    return value if value in present else None


def _as_in(samples: Samples, named: Value) -> Value | None:
    """A named value in the form of the samples' values; None for a color in a gray mask."""
    if samples.ndim == 3:
        return named if isinstance(named, tuple) else (named, named, named)
    if isinstance(named, tuple):
        return named[0] if len(set(named)) == 1 else None
    return named


def _is_ambiguous(levels: Sequence[Level]) -> bool:
    values = [level.value for level in levels]
    if len(values) == 3 and values[1] == IGNORED:
        slack = 255 * mask_levels.RINGING
        darkest, _, brightest = map(mask_levels.strength, values)
        return darkest > slack or abs(brightest - 255) > slack
    return len(values) > 2


def _is_gray(pixels: Samples) -> bool:
    blue, green, red = cv2.split(pixels)
    return bool(np.array_equal(blue, green) and np.array_equal(green, red))


def _strongest(samples: Samples) -> Samples:
    """Gray (H, W) as it is; of BGR (H, W, 3) the strongest channel, uint8 (H, W)."""
    if samples.ndim == 2:
        return samples
    strongest = np.empty(samples.shape[:2], np.uint8)
    for rows in mask_levels.stripes(samples):
        blue, green, red = cv2.split(samples[rows])
        strongest[rows] = cv2.max(cv2.max(blue, green), red)
    return strongest


def _commonest(pixels: Samples) -> Value:
    """The most frequent value of bool or gray (n,) or BGR (n, 3)."""
    if pixels.dtype == np.bool_:
        return ONE_BIT[bool(pixels.mean() > 0.5)][0]
    if pixels.ndim == 2 and (pixels == pixels[:, :1]).all():
        pixels = pixels[:, 0]
    return mask_levels.count(pixels)[0][0]


def _absent(levels: Sequence[Level]) -> MaskValuesError:
    return MaskValuesError(f"{ABSENT}: the mask has {_listed(levels)}")


def _listed(levels: Sequence[Level]) -> str:
    return ", ".join(map(str, levels))
