"""curves.png: the loss curves for those who browse the bucket instead of opening the report."""

from __future__ import annotations

import tempfile

import resvg_py
from PIL import ImageFont

from jobs.reports.svg import History, light_picture

ZOOM = 2


def draw_curves(history: History) -> bytes:
    """curves.svg as a PNG, in light colors, at ZOOM times its size."""
    # The container image has no fonts, and resvg reads them from files alone: give it Pillow's.
    font = ImageFont.load_default(size=12)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels have FreeType"
    family, _ = font.getname()
    with tempfile.NamedTemporaryFile(suffix=".ttf") as file:
        file.write(font.font_bytes)
        file.flush()
        return resvg_py.svg_to_bytes(
            svg_string=light_picture(history),
            zoom=ZOOM,
            skip_system_fonts=True,
            font_files=[file.name],
            sans_serif_family=family,
        )
