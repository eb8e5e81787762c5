"""The model package: models/<name>/<version>/model.safetensors and model.json, written once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.errors import AccessError, BadDataError, ConflictError, NotFoundError
from jobs.films.model_json import (
    TrainedJson,
    WeightsJson,
    check_package_json,
    read_package_json,
    read_trained_json,
)
from jobs.films.training_pairs import sources_of
from jobs.storage.manifest import Manifest, describe
from jobs.storage.s3 import Store

# The package that comes with the project.
STARTER = Path(__file__).parents[1] / "starter"
NLM_TERMS = (
    "terms of the U.S. National Library of Medicine, which asks for credit: Jaeger et al., Two "
    "public chest X-ray datasets for computer-aided screening of pulmonary diseases, Quant Imaging "
    "Med Surg 2014;4(6):475-477"
)
LICENCES = {
    "montgomery": f"films and masks: {NLM_TERMS}",
    "shenzhen": f"films: {NLM_TERMS}; masks (yoctoman/shcxr-lung-mask): CC BY-NC-SA 4.0",
    "phantoms": "none: drawn by a program, of no person",
    "custom": "the team's own",
}
INTENDED_USE = (
    "Research on lung segmentation in frontal chest X-rays like those it was trained on. It is no "
    "medical device: its masks are not for diagnosis or treatment."
)


@dataclass(frozen=True)
class Package:
    """A model version: the content of model.json and the bytes of model.safetensors.

    Weights in float16 are those of a network that computes with them in float32.
    """

    version: str
    model_json: Mapping[str, Any]
    weights: bytes


def write_package(
    store: Store, models: str, manifests: Mapping[str, Manifest], metrics: Mapping[str, Any]
) -> Package:
    """Write the trained model under its version; an existing package stays as it is.

    Args:
        models: URI of the folder models/<name>.
        manifests: by the names raw, processed and trained.
        metrics: of the evaluation, for model.json.
    """
    trained = manifests["trained"]
    weights = trained.read_file(store, "model.safetensors")
    entry = describe("model.safetensors", weights)
    version = _version(store, models, trained.fingerprint, entry.sha256)
    model_json = read_trained_json(store, trained, TrainedJson)
    sources = sources_of(manifests["processed"])
    model_json |= {
        "version": version,
        "weights": asdict(entry),
        "metrics": {**model_json["metrics"], **metrics},
        "data": {**model_json["data"], "raw": manifests["raw"].content_hash},
        "licences": {source: LICENCES[source] for source in sources},
        "intended_use": INTENDED_USE,
    }
    folder = f"{models}/{version}"
    if not store.exists(f"{folder}/model.json"):
        store.write(f"{folder}/model.safetensors", weights)
        with contextlib.suppress(ConflictError):
            store.write_json(f"{folder}/model.json", model_json, if_absent=True)
    return Package(version, model_json, weights)


def read_package(store: Store, models: str, version: str) -> Package:
    """The package models/<name>/<version>, its weights checked by their sha256.

    Raises BadDataError where it is damaged.
    """
    model_json = read_package_json(store, f"{models}/{version}/model.json")
    sha256 = model_json["weights"]["sha256"]
    weights = store.read(f"{models}/{version}/model.safetensors", sha256=sha256)
    return Package(version, model_json, weights)


def read_local_package(folder: Path) -> Package:
    """The package in a folder of this machine, its weights checked by their sha256.

    Raises NotFoundError where the folder holds none, BadDataError where it is damaged.
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
    return Package(model_json.get("version", folder.name), model_json, weights)


def _version(store: Store, models: str, fingerprint: str, sha256: str) -> str:
    """The training's fingerprint, with the weights' `sha256` where a rerun gave other weights.

    On a GPU, or on a CPU of another make, the same training does not give the same bits.
    """
    try:
        published = read_package_json(store, f"{models}/{fingerprint}/model.json", WeightsJson)
    except NotFoundError:
        return fingerprint
    return (
        fingerprint if published["weights"]["sha256"] == sha256 else f"{fingerprint}-{sha256[:8]}"
    )
