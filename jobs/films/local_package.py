"""A model package in a folder of this machine: model.json and model.safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.errors import AccessError, BadDataError, NotFoundError
from jobs.films.model_json import check_package_json
from jobs.storage.manifest import describe


def read_package_folder(folder: Path) -> tuple[dict[str, Any], bytes]:
    """(content of model.json, weights) of a folder, the weights checked by their sha256.

    Raises NotFoundError where the folder holds no package, AccessError where it cannot be read,
    BadDataError where it is damaged.
    """
    try:
        text, weights = (
            (folder / name).read_bytes() for name in ("model.json", "model.safetensors")
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"there is no model package in {folder}, no {error.filename}: give a folder with "
            "model.json and model.safetensors, as models/<name>/<version>/ has them"
        ) from error
    except OSError as error:
        raise AccessError(f"{folder} cannot be read: {error.strerror}") from error
    model_json = check_package_json(text, str(folder / "model.json"))
    found, expected = describe("", weights).sha256, model_json["weights"]["sha256"]
    if found != expected:
        raise BadDataError(
            f"the sha256 of {folder / 'model.safetensors'} is {found}, and model.json names "
            f"{expected}: copy the package again"
        )
    return model_json, weights
