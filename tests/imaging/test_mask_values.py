"""Which pixels of a mask are lung: by two values, or by those that are named."""

from __future__ import annotations

import io
import re
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.imaging import mask_levels
from jobs.imaging.decode import ImageError, MaskError, decode_mask, decode_truth
from jobs.imaging.mask_levels import name_of
from jobs.imaging.mask_values import names_in, parse
from tests.support.films import ellipse
from tests.support.image_files import LA_PNG, RGB_PNG, RGBA_PNG, png, saved, tiff

HEIGHT, WIDTH = 160, 128
LEFT = ellipse(HEIGHT, WIDTH, (0.5, 0.3))
RIGHT = ellipse(HEIGHT, WIDTH, (0.5, 0.72))
LUNGS = LEFT | RIGHT
HEART = np.zeros((HEIGHT, WIDTH), np.bool_)
HEART[95:125, 45:85] = True
HEART &= ~LUNGS
CLAVICLES = np.zeros((HEIGHT, WIDTH), np.bool_)
CLAVICLES[18:26, 20:108] = True
CLAVICLES &= ~LUNGS
BLACK, WHITE, RED, GREEN, BLUE, YELLOW = (
    *((0, 0, 0), (255, 255, 255)),
    *((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)),
)
Table = list[Any]
# What a table colors, in its order.
LABELS = (
    0 + 1 * LEFT.astype(np.uint8) + 2 * RIGHT.astype(np.uint8) + 3 * HEART + 4 * CLAVICLES
).astype(np.uint8)


def paint(table: Table, dtype: type = np.uint8) -> NDArray[Any]:
    """The background, the left lung, the right one, the heart, the clavicles in these values."""
    return np.array(table, dtype)[LABELS]


def resized(samples: NDArray[Any], side: int, how: Image.Resampling) -> NDArray[Any]:
    return np.asarray(Image.fromarray(samples).resize((side, side * HEIGHT // WIDTH), how))


def refusal(data: bytes, values: str = "") -> str:
    with pytest.raises(ImageError) as caught:
        decode_truth(data, parse(values))
    assert isinstance(caught.value, MaskError)
    return str(caught.value)


def lungs(data: bytes, values: str = "") -> NDArray[np.bool_]:
    return decode_truth(data, parse(values)).pixels


def shares(reason: str) -> dict[str, float]:
    """The values that a reason names, with their percentages."""
    return {
        name: float(share) for name, share in re.findall(r"(#?[0-9a-f]+) \(([\d.]+) %\)", reason)
    }


def percent(*parts: NDArray[np.bool_]) -> list[Any]:
    return [pytest.approx(100 * part.mean(), abs=0.06) for part in parts]


LABEL_MAPS: dict[str, tuple[NDArray[Any], str]] = {
    "1 right, 2 left": (paint([0, 2, 1, 0, 0]), "1,2"),
    "lungs and heart": (paint([0, 1, 2, 3, 0]), "1,2"),
    "five classes": (paint([0, 1, 2, 3, 4]), "1,2"),
    "50 and 100": (paint([0, 50, 100, 0, 0]), "50,100"),
    "64, 128, 192, 255": (paint([0, 64, 128, 192, 255]), "64,128"),
    "four grays": (paint([170, 255, 255, 85, 0]), "255"),
    "heart at 127 with lungs at 200": (paint([0, 200, 200, 127, 0]), "200"),
    "127 and 128": (paint([0, 127, 128, 0, 0]), "127,128"),
    "close to white": (paint([0, 250, 255, 0, 0]), "250,255"),
    "labels and a void of 255": (paint([0, 1, 2, 0, 255]), "1,2"),
    "bright background": (paint([255, 128, 128, 64, 255]), "128"),
    "16 bits, 1000 and 2000": (paint([0, 1000, 2000, 0, 0], np.uint16), "1000,2000"),
    "16 bits, 1 and 65535": (paint([0, 1, 2, 0, 65535], np.uint16), "1,2"),
    "16 bits, 256 and 512": (paint([0, 256, 512, 0, 0], np.uint16), "256,512"),
    "32 bits": (paint([0, 1, 2, 3, 0], np.int32), "1,2"),
    "red lungs, green heart": (paint([BLACK, RED, RED, GREEN, BLACK]), "#ff0000"),
    "a red and a blue lung": (paint([BLACK, RED, BLUE, BLACK, BLACK]), "#ff0000,#0000ff"),
    "blue and yellow": (paint([BLACK, BLUE, YELLOW, BLACK, BLACK]), "#0000ff,#FFFF00"),
    "red on white": (paint([WHITE, RED, RED, WHITE, WHITE]), "#ff0000"),
    "labels in gray of three channels": (
        paint([BLACK, (1, 1, 1), (2, 2, 2), BLACK, BLACK]),
        "1,2",
    ),
    "labels in the red channel": (
        paint([BLACK, (1, 0, 0), (2, 0, 0), BLACK, BLACK]),
        "#010000,#020000",
    ),
}


@pytest.mark.parametrize("kind", LABEL_MAPS)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_a_mask_of_several_values_is_refused_until_the_lungs_are_named(
    kind: str, file_format: str
) -> None:
    samples, values = LABEL_MAPS[kind]
    if samples.dtype == np.int32 and file_format == "PNG":
        file_format = "TIFF"
    data = saved(samples, file_format)
    reason = refusal(data)
    assert reason.startswith("several values: ") and reason.endswith("; choose with --mask-values")
    assert {name_of(value) for value in parse(values)} <= set(names_in(reason))
    assert sum(shares(reason).values()) == pytest.approx(100, abs=0.3)
    with pytest.raises(MaskError, match=r"^several values: "):
        decode_mask(data)
    assert np.array_equal(lungs(data, values), LUNGS)


def test_the_reason_names_each_value_with_its_area() -> None:
    reason = refusal(saved(paint([0, 1, 2, 0, 0]), "PNG"))
    assert list(shares(reason)) == ["0", "1", "2"]
    assert list(shares(reason).values()) == percent(~LUNGS, LEFT, RIGHT)
    reason = refusal(saved(paint([BLACK, RED, RED, GREEN, BLACK]), "PNG"))
    assert list(shares(reason)) == ["#000000", "#00ff00", "#ff0000"]
    assert list(shares(reason).values()) == percent(~(LUNGS | HEART), HEART, LUNGS)


def test_a_palette_mask_is_read_by_its_colors_whatever_their_order() -> None:
    image = Image.fromarray((3 - np.minimum(LABELS, 3)).astype(np.uint8), "L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([*GREEN, *BLUE, *RED, *BLACK])
    for file_format in ("PNG", "TIFF"):
        data = saved(image, file_format)
        assert names_in(refusal(data)) == ["#000000", "#0000ff", "#00ff00", "#ff0000"]
        assert np.array_equal(lungs(data, "#ff0000,#0000ff"), LUNGS)


def test_color_of_16_bits_keeps_its_values() -> None:
    data = png(paint([BLACK, RED, RED, GREEN, BLACK]).astype(np.uint16) * 257, RGB_PNG)
    assert names_in(refusal(data)) == ["#000000", "#00ff00", "#ff0000"]
    assert np.array_equal(lungs(data, "#ff0000"), LUNGS)


def test_alpha_is_no_value() -> None:
    opaque = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha = np.where(HEART, 0, 255).astype(np.uint8)
    gray = LUNGS * np.uint8(255)
    for samples, color in (
        (np.dstack([gray, alpha]), LA_PNG),
        (np.dstack([gray, gray, gray, alpha]), RGBA_PNG),
    ):
        assert np.array_equal(lungs(png(samples, color)), LUNGS)
    three = paint([0, 1, 2, 0, 0])
    assert refusal(png(np.dstack([three, opaque]), LA_PNG)).startswith("several values: 0 (")


def test_a_turned_mask_of_colors_is_turned_upright() -> None:
    data = tiff(paint([BLACK, RED, RED, GREEN, BLACK]), 2, orientation=6)
    assert np.array_equal(lungs(data, "#ff0000"), np.rot90(LUNGS, -1))


@pytest.mark.parametrize("low", [0, 1, 100, 150, 254])
def test_of_two_gray_values_the_brighter_one_is_lung(low: int) -> None:
    assert np.array_equal(lungs(saved(paint([low, 255, 255, low, low]), "PNG")), LUNGS)


def test_127_beside_0_and_255_is_ignored() -> None:
    data = saved(paint([0, 255, 255, 127, 0]), "PNG")
    assert np.array_equal(lungs(data), LUNGS)
    assert np.array_equal(lungs(saved(paint([0, 255, 255, 127, 0]), "TIFF")), LUNGS)
    assert refusal(saved(paint([0, 255, 255, 128, 0]), "PNG")).startswith("several values: 0 (")
    assert refusal(saved(paint([0, 254, 255, 127, 85]), "PNG")).startswith("several values: 0 (")


@pytest.mark.parametrize("how", ["BILINEAR", "BICUBIC", "LANCZOS", "BOX"])
@pytest.mark.parametrize("side", [64, 96, 200, 512, 1024])
def test_a_resized_mask_has_two_values(how: str, side: int) -> None:
    samples = resized(LUNGS * np.uint8(255), side, Image.Resampling[how])
    expected = samples > samples.max() // 2
    assert np.array_equal(lungs(saved(samples, "PNG")), expected)
    assert np.array_equal(
        lungs(saved(np.dstack([samples, 0 * samples, 0 * samples]), "PNG")), expected
    )
    deep = samples.astype(np.uint16) * 257
    assert np.array_equal(lungs(saved(deep, "PNG")), expected)


def test_a_small_antialiased_mask_enlarged_by_its_nearest_pixels_has_two_values() -> None:
    small = resized(LUNGS * np.uint8(255), 64, Image.Resampling.BILINEAR)
    for times in (2, 4, 8):
        samples = np.kron(small, np.ones((times, times), np.uint8))
        assert np.array_equal(lungs(saved(samples, "PNG")), samples > 127)


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 95])
@pytest.mark.parametrize("side", [128, 512])
def test_the_ringing_of_a_jpeg_adds_no_value(quality: int, side: int) -> None:
    samples = resized(LUNGS * np.uint8(255), side, Image.Resampling.NEAREST)
    data = saved(samples, "JPEG", quality=quality)
    assert np.mean(lungs(data) != (samples > 127)) < 0.01
    assert np.mean(lungs(data) != lungs(data, "255")) < 0.01
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(lungs(saved(np.asarray(image), "PNG")), lungs(data))


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_a_third_gray_of_a_jpeg_is_seen(quality: int) -> None:
    samples = resized(paint([0, 255, 255, 128, 0]), 512, Image.Resampling.NEAREST)
    assert refusal(saved(samples, "JPEG", quality=quality)).startswith("several values: 0 (")


@pytest.mark.parametrize("sigma", [0.7, 2, 5])
def test_a_blurred_mask_has_two_values(sigma: float) -> None:
    samples = cv2.GaussianBlur(LUNGS * np.uint8(255), (0, 0), sigma)
    assert np.array_equal(lungs(saved(samples, "PNG")), samples > samples.max() // 2)


@pytest.mark.parametrize("softness", [1, 4, 10])
def test_probabilities_are_lung_above_one_half(softness: float) -> None:
    inside, outside = (
        cv2.distanceTransform(part.view(np.uint8), cv2.DIST_L2, 5) for part in (LUNGS, ~LUNGS)
    )
    samples = np.rint(255 / (1 + np.exp((outside - inside) / softness))).astype(np.uint8)
    assert np.array_equal(lungs(saved(samples, "PNG")), samples > samples.max() // 2)


def test_specks_and_lines_add_no_value() -> None:
    samples = LUNGS * np.uint8(255)
    samples[80, :] = samples[:, 64] = 90
    samples[3:6, 3:6] = 170
    assert np.array_equal(lungs(saved(samples, "PNG")), samples > 127)


@pytest.mark.parametrize("how", ["BILINEAR", "LANCZOS"])
def test_a_resized_label_map_is_refused_and_its_named_lungs_keep_their_shape(how: str) -> None:
    samples = resized(paint([0, 85, 170, 255, 0]), 256, Image.Resampling[how])
    assert refusal(saved(samples, "PNG")).startswith("several values: 0 (")
    expected = resized(LUNGS * np.uint8(255), 256, Image.Resampling[how]) > 127
    assert np.mean(lungs(saved(samples, "PNG"), "85,170") != expected) < 0.02


def test_a_mask_without_any_named_value_is_refused_and_says_what_it_has() -> None:
    reason = refusal(saved(paint([0, 1, 2, 0, 0]), "PNG"), "3,255")
    assert reason.startswith("no value of --mask-values: the mask has 0 (")
    assert names_in(reason) == ["0", "1", "2"]
    assert refusal(saved(LUNGS, "PNG"), "7").startswith("no value of --mask-values: ")
    assert refusal(saved(paint([0, 255, 255, 0, 0]), "PNG"), "#ff0000").startswith("no value of ")


def test_an_empty_side_has_no_lung_whatever_is_named() -> None:
    empty = np.zeros((HEIGHT, WIDTH))
    assert not lungs(saved(empty.astype(np.uint8), "PNG"), "1,2").any()
    assert not lungs(saved(empty.astype(np.bool_), "PNG"), "255").any()


def test_the_named_values_that_occur_are_returned() -> None:
    data = saved(paint([0, 1, 2, 0, 0]), "PNG")
    assert decode_truth(data, parse("2,9,1")).named == (2, 1)
    assert decode_truth(saved(LUNGS, "PNG"), ()).named == ()


def test_a_small_organ_beside_the_named_ones_is_no_lung() -> None:
    samples = paint([0, 1, 2, 0, 0])
    samples[4:12, 4:12] = 3
    assert (samples == 3).mean() < mask_levels.SMALLEST_LEVEL
    assert np.array_equal(lungs(saved(samples, "PNG"), "1,2"), LUNGS)


@pytest.mark.parametrize("values", ["1", "255", "#ffffff"])
def test_white_of_one_bit_has_each_of_its_names(values: str) -> None:
    assert np.array_equal(lungs(saved(LUNGS, "PNG"), values), LUNGS)


INVERTED: dict[str, bytes] = {
    "1 bit": saved(~LUNGS, "PNG"),
    "8 bits": saved(~LUNGS * np.uint8(255), "PNG"),
    "0 and 1": saved((~LUNGS).astype(np.uint8), "PNG"),
    "16 bits": saved(~LUNGS * np.uint16(65535), "PNG"),
    "TIFF": saved(~LUNGS * np.uint8(255), "TIFF"),
    "JPEG": saved(~LUNGS * np.uint8(255), "JPEG", quality=75),
    "RGB": saved(np.dstack([~LUNGS * np.uint8(255)] * 3), "PNG"),
    "antialiased": saved(resized(~LUNGS * np.uint8(255), 96, Image.Resampling.LANCZOS), "PNG"),
    "one lung": saved(~LEFT * np.uint8(255), "PNG"),
    "palette": saved(Image.fromarray(~LUNGS * np.uint8(255)).convert("P"), "PNG"),
}


@pytest.mark.parametrize("kind", INVERTED)
def test_an_inverted_mask_is_refused_and_0_is_its_lung(kind: str) -> None:
    data = INVERTED[kind]
    reason = refusal(data)
    assert reason.startswith("inverted: ") and " surrounds 0 (" in reason
    assert reason.endswith("; give --mask-values 0")
    truth = LEFT if kind == "one lung" else LUNGS
    found = lungs(data, "0")
    assert abs(float(found.mean()) - float(truth.mean())) < 0.01
    if kind not in ("JPEG", "antialiased"):
        assert np.array_equal(found, truth)


def test_the_remedy_of_an_inverted_mask_names_the_value_of_its_lungs() -> None:
    gray = saved(paint([255, 128, 128, 255, 255]), "PNG")
    assert refusal(gray).endswith("; give --mask-values 128")
    assert np.array_equal(lungs(gray, "128"), LUNGS)
    colored = saved(paint([YELLOW, (0, 0, 90), (0, 0, 90), YELLOW, YELLOW]), "PNG")
    assert refusal(colored).endswith("; give --mask-values #00005a")
    assert np.array_equal(lungs(colored, "#00005a"), LUNGS)


def test_naming_the_background_of_a_mask_that_is_not_inverted_is_refused() -> None:
    assert refusal(saved(LUNGS, "PNG"), "0").startswith("inverted: 0 (")


def test_an_inverted_mask_within_black_bars_is_refused_without_a_promise() -> None:
    samples = np.pad(~LUNGS * np.uint8(255), ((12, 12), (9, 9)))
    assert "; the border of the film has the value of the lungs" in refusal(saved(samples, "PNG"))


def test_a_large_mask_is_searched_in_every_nth_line(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(paint([0, 1, 2, 3, 0]), "PNG")
    reason = refusal(data)
    monkeypatch.setattr(mask_levels, "SEARCHED", LUNGS.size // 3)
    monkeypatch.setattr(mask_levels, "STRIPE", 1000)
    assert names_in(refusal(data)) == names_in(reason)
    assert np.array_equal(lungs(data, "1,2"), LUNGS)
    colored = saved(paint([BLACK, RED, RED, GREEN, BLACK]), "PNG")
    assert np.array_equal(lungs(colored, "#ff0000"), LUNGS)


def test_mask_values_are_parsed_and_named_alike() -> None:
    assert parse("") == ()
    assert parse("1,65535,#0A00ff") == (1, 65535, (10, 0, 255))
    assert [name_of(value) for value in parse("1,#0A00ff")] == ["1", "#0a00ff"]
