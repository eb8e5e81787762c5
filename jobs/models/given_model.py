"""The model that a job is given by its URI: of a trained manifest, or of a published version."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.errors import BadDataError
from jobs.films.model_json import NetworkJson, read_package_json, read_trained_json
from jobs.films.seen_patients import SeenPatients, read_seen_patients, seen_by_package
from jobs.settings.patterns import MANIFEST_URI
from jobs.storage.manifest import Manifest, describe, read_input, read_manifest
from jobs.storage.s3 import Store

# What the fingerprint of its masks has of a package's model.json, beside the weights' sha256.
DECISIVE = ("architecture", "recipe")


@dataclass(frozen=True)
class GivenModel:
    """A trained network that is not read yet.

    Attributes:
        uri: of the trained manifest, or of the folder of a package.
        trained: the manifest; None of a package.
        model_json: the content of a package's model.json; {} of a trained manifest.
    """

    store: Store
    uri: str
    trained: Manifest | None
    model_json: Mapping[str, Any]

    def inputs(self) -> dict[str, Manifest]:
        """The manifests that enter a fingerprint."""
        return {"trained": self.trained} if self.trained else {}

    def identity(self) -> dict[str, Any]:
        """What enters a fingerprint in place of a manifest: a package has none."""
        if self.trained:
            return {}
        decisive = {name: self.model_json[name] for name in DECISIVE}
        return {"model": {"weights": self.model_json["weights"]["sha256"], **decisive}}

    def identity_with_films(self) -> dict[str, Any]:
        """As `identity`, with what tells which films it has seen, as a hash."""
        if self.trained:
            return {}
        told = [self.model_json.get(name) for name in ("data", "training")]
        text = json.dumps(told, sort_keys=True).encode()
        return {**self.identity(), "seen": describe("", text).sha256}

    def details(self) -> dict[str, Any]:
        """Where `model_of` finds a package again."""
        return {} if self.trained else {"package": self.uri}

    def shown(self) -> dict[str, Any]:
        """What the page of the masks shows of it: "version" and "val_dice"; None: not known."""
        if self.trained:
            version, dice = self.trained.fingerprint, self.trained.headline.get("best_val_dice")
        else:
            version = self.uri.rpartition("/")[2]
            dice = self.model_json.get("metrics", {}).get("val_dice")
        # No job checks the headline of another.
        return {
            "version": version,
            "val_dice": dice if type(dice) is float and 0 <= dice <= 1 else None,
        }

    def network(self) -> tuple[Mapping[str, Any], bytes]:
        """(content of model.json, weights), the weights checked by their sha256."""
        if self.trained:
            model_json = read_trained_json(self.store, self.trained, NetworkJson)
            return model_json, self.trained.read_file(self.store, "model.safetensors")
        sha256 = self.model_json["weights"]["sha256"]
        return self.model_json, self.store.read(f"{self.uri}/model.safetensors", sha256=sha256)

    def seen(self, processed: Manifest) -> SeenPatients:
        """The patients it has seen, of the films of `processed`; ConfigError if not known."""
        if self.trained:
            return read_seen_patients(self.store, self.trained, processed)
        return seen_by_package(self.store, self.uri, self.model_json, processed)


def given_model(store: Store, uri: str) -> GivenModel:
    """Raises NotFoundError where there is none, BadDataError where its model.json is none."""
    if re.fullmatch(MANIFEST_URI, uri):
        return GivenModel(store, uri, read_manifest(store, uri, "train"), {})
    return GivenModel(store, uri, None, read_package_json(store, f"{uri}/model.json"))


def model_of(store: Store, predictions: Manifest) -> GivenModel:
    """The model that made the predictions; BadDataError where it is another one by now."""
    if "model" not in predictions.config:
        trained = read_input(store, predictions, "trained", "train")
        return GivenModel(store, trained.uri, trained, {})
    model = given_model(store, predictions.details["package"])
    if model.identity()["model"] != predictions.config["model"]:
        raise BadDataError(
            f"{predictions.uri} was made by other weights or another recipe than {model.uri} has "
            "now: run predict again"
        )
    return model
