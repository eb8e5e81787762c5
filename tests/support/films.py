"""Small films with two elliptical lungs, drawn with numpy: the input of the jobs' tests."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def ellipse(height: int, width: int, center: tuple[float, float]) -> NDArray[np.bool_]:
    """A lung, bool (height, width): half axes of 0.3 height and 0.13 width.

    `center` is (y, x) as shares of height and width.
    """
    rows, columns = np.mgrid[:height, :width]
    y = (rows / height - center[0]) / 0.3
    x = (columns / width - center[1]) / 0.13
    return np.asarray(x * x + y * y < 1)


def draw_pair(
    seed: int, height: int = 160, width: int = 128
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """(film uint8, left lung bool, right lung bool), each (H, W): dark lungs in a noisy chest."""
    rng = np.random.default_rng(seed)
    shift = rng.uniform(-0.04, 0.04, 2)
    left = ellipse(height, width, (0.5 + shift[0], 0.3 + shift[1]))
    right = ellipse(height, width, (0.5 + shift[0], 0.7 + shift[1]))
    film = np.where(left | right, 70, 180) + rng.normal(0, 12, (height, width))
    return np.clip(film, 0, 255).astype(np.uint8), left, right


def png(image: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def write_montgomery(folder: Path, count: int, *, stem: str = "MCUCXR", seed: int = 0) -> None:
    """Write `count` films in the Montgomery layout, of patients 0001 and up."""
    root = folder / "Montgomery" / "MontgomerySet"
    folders = [root / name for name in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")]
    for image_folder in folders:
        image_folder.mkdir(parents=True)
    for number in range(1, count + 1):
        name = f"{stem}_{number:04d}_{number % 2}.png"
        for image_folder, image in zip(folders, draw_pair(seed + number), strict=True):
            (image_folder / name).write_bytes(png(image))


def run_job(
    *arguments: str, environment: dict[str, str], check: bool = True, printed: bool = False
) -> Any:
    """Run `python -m jobs ...` in a process; its JSON result.

    Without `check`, the completed process, which may have failed. With `printed`, (result, stderr).
    """
    process = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if not check:
        return process
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    return (result, process.stderr) if printed else result
