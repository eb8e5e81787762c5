"""svg: the curves of a training, in the report and as a file, and the calibration."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from jobs.reports import svg
from tests.support.published import HISTORY

SVG = "{http://www.w3.org/2000/svg}"


def points(drawing: str, line: str) -> list[tuple[float, float]]:
    (pairs,) = re.findall(rf'<polyline class="{line}" points="([^"]*)"', drawing)
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in pairs.split())]


def test_the_curves_have_a_point_an_epoch_at_the_height_of_its_value() -> None:
    drawing = svg.curves_svg(HISTORY, best=2)["loss"]
    for line, values in (("train", [0.6, 0.3, 0.2, 0.15]), ("val", [0.7, 0.35, 0.7 / 3, 0.175])):
        positions = points(drawing, line)
        assert [x for x, _ in positions] == sorted({x for x, _ in positions})
        # The axis goes from 0 at the bottom to 0.8, the tick above the highest loss.
        heights = [(svg.BOTTOM - y) / (svg.BOTTOM - svg.TOP) for _, y in positions]
        assert heights == pytest.approx([value / 0.8 for value in values], abs=0.002)
    assert len({y for _, y in points(drawing, "reference")}) == 1


def test_the_best_epoch_has_the_ring_and_the_last_one_the_dot() -> None:
    drawing = svg.curves_svg(HISTORY, best=2)["dice"]
    marks = dict(re.findall(r'<circle class="(\w+)" (cx="[\d.]+" cy="[\d.]+")', drawing))
    expected = {"best": points(drawing, "val")[2], "last": points(drawing, "val")[3]}
    assert marks == {mark: f'cx="{x}" cy="{y}"' for mark, (x, y) in expected.items()}


def test_a_single_epoch_can_be_drawn() -> None:
    for drawing in svg.curves_svg(HISTORY[:1], best=0).values():
        assert len(points(drawing, "val")) == 1
        assert "nan" not in drawing


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 0.7, [0, 0.2, 0.4, 0.6, 0.8]),
        (0.4, 1.0, [0.4, 0.6, 0.8, 1.0]),
        (0.93, 1.0, [0.92, 0.94, 0.96, 0.98, 1.0]),
        (0.0, 0.05, [0, 0.01, 0.02, 0.03, 0.04, 0.05]),
        (1.0, 1.0, [1.0, 1.000001]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(
    low: float, high: float, expected: list[float]
) -> None:
    assert svg.ticks(low, high, 5) == pytest.approx(expected)


def test_ticks_of_epochs_are_whole() -> None:
    for epochs in (1, 2, 7, 12, 40, 1000):
        ticks = svg.ticks(1, epochs, 8, smallest=1)
        assert all(tick == int(tick) for tick in ticks)
        assert len(ticks) <= 12


@pytest.mark.parametrize("epochs_done", [1, 3, 4])
def test_the_picture_is_xml_with_a_point_an_epoch_on_each_line(epochs_done: int) -> None:
    root = ElementTree.fromstring(svg.picture(HISTORY[:epochs_done], epochs=4))
    assert root.tag == f"{SVG}svg"
    lines = root.findall(f".//{SVG}polyline")
    assert [line.get("class") for line in lines] == ["reference", "train", "val", "val"]
    assert [len(line.attrib["points"].split()) for line in lines] == [epochs_done] * 4


def test_the_picture_has_no_script_and_no_link() -> None:
    root = ElementTree.fromstring(svg.picture(HISTORY, epochs=4))
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags == {"svg", "style", "rect", "g", "text", "tspan", "path", "polyline", "circle"}
    for element in root.iter():
        assert not any(name.startswith("on") or "href" in name for name in element.attrib)
    style = root.findtext(f"{SVG}style") or ""
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_the_lines_of_a_running_training_grow_along_a_fixed_axis() -> None:
    early, late = (svg.picture(HISTORY[:done], epochs=40).decode() for done in (2, 3))
    early_x, late_x = ([x for x, _ in points(drawing, "train")] for drawing in (early, late))
    assert early_x == late_x[:2]
    # The third of forty epochs lies 2 / 39 of the way to the right.
    assert late_x[2] == pytest.approx(svg.LEFT + 2 / 39 * (svg.RIGHT - svg.LEFT), abs=0.1)


def test_the_picture_has_the_last_figures() -> None:
    text = " ".join(ElementTree.fromstring(svg.picture(HISTORY, epochs=4)).itertext())
    assert "train 0.150" in text and "validation 0.175" in text and "all lung 0.600" in text
    assert "best 0.900 in epoch 3" in text


def test_a_calibration_has_a_point_and_a_bar_for_each_bin() -> None:
    curve = [
        {"predicted": 0.0, "lung": 0.1, "share": 0.7},
        {"predicted": 0.5, "lung": 0.25, "share": 0.1},
        {"predicted": 1.0, "lung": 1.0, "share": 0.2},
    ]
    drawing = svg.calibration_svg(curve)
    width, height = svg.RIGHT - svg.LEFT, svg.BOTTOM - svg.TOP
    expected = [
        (svg.LEFT + width * point["predicted"], svg.BOTTOM - height * point["lung"])
        for point in curve
    ]
    assert points(drawing, "val") == [pytest.approx(point, abs=0.06) for point in expected]
    assert points(drawing, "reference") == [(svg.LEFT, svg.BOTTOM), (svg.RIGHT, svg.TOP)]
    bars = re.findall(r'<path class="share" d="M[\d.]+ ([\d.]+)V([\d.]+)"', drawing)
    heights = [(float(low) - float(high)) / height for low, high in bars]
    assert heights == pytest.approx([0.7, 0.1, 0.2], abs=0.001)
    ElementTree.fromstring(drawing)


def test_the_light_picture_has_the_light_colors_and_no_variables() -> None:
    drawing = svg.light_picture(HISTORY)
    assert "var(" not in drawing and "@media" not in drawing
    assert "polyline.train { stroke: #1668a7; }" in drawing
    light, both = (
        re.sub(r"<style>.*?</style>", "", text, flags=re.S)
        for text in (drawing, svg.picture(HISTORY, epochs=len(HISTORY)).decode())
    )
    assert light == both
