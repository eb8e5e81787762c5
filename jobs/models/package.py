"""The model package: models/<name>/<version>/model.safetensors and model.json, written once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.errors import ConflictError, NotFoundError
from jobs.films.local_package import read_package_folder
from jobs.films.model_json import (
    TrainedJson,
    WeightsJson,
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
    package = Package(version, model_json, weights)
    _put(store, models, package)
    return package


def add_package(store: Store, models: str, package: Package) -> Package:
    """Write a package of another place as a version of the model; one that is there stays.

    Where its version has other weights there already, it gets another version, which is returned.
    """
    sha256 = package.model_json["weights"]["sha256"]
    version = _version(store, models, package.version, sha256)
    added = Package(version, {**package.model_json, "version": version}, package.weights)
    _put(store, models, added)
    return added


def read_package(store: Store, models: str, version: str) -> Package:
    """The package models/<name>/<version>, its weights checked by their sha256.

    Raises BadDataError where it is damaged.
    """
    model_json = read_package_json(store, f"{models}/{version}/model.json")
    sha256 = model_json["weights"]["sha256"]
    weights = store.read(f"{models}/{version}/model.safetensors", sha256=sha256)
    return Package(version, model_json, weights)


def read_local_package(folder: Path) -> Package:
    """The package in a folder of this machine; errors as of `read_package_folder`."""
    model_json, weights = read_package_folder(folder)
    # Not the folder's name: no path of a machine belongs into a model.json that names the version.
    version = model_json.get("version", model_json["weights"]["sha256"][:16])
    return Package(version, model_json, weights)


def _put(store: Store, models: str, package: Package) -> None:
    """Write models/<name>/<version>/, model.json last; an existing package stays as it is."""
    folder = f"{models}/{package.version}"
    if not store.exists(f"{folder}/model.json"):
        store.write(f"{folder}/model.safetensors", package.weights)
        with contextlib.suppress(ConflictError):
            store.write_json(f"{folder}/model.json", package.model_json, if_absent=True)


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
