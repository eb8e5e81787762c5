"""The weights of another model that a training starts from: what `--init-from` names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import ConfigError, NotFoundError
from jobs.models.champion_entry import read_champion
from jobs.models.package import Package, read_local_package, read_package
from jobs.models.starter import read_starter
from jobs.settings.config import TrainConfig
from jobs.storage.manifest import describe
from jobs.storage.s3 import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartingWeights:
    """A package to start from.

    Attributes:
        name: what `--init-from` names to find the same package again: "starter", a folder, or the
            URI of a version, also where it named the champion.
    """

    name: str
    package: Package

    @property
    def sha256(self) -> str:
        """Of the file of the weights: what the training's fingerprint has of them."""
        return describe("model.safetensors", self.package.weights).sha256

    def origin(self) -> dict[str, str]:
        """What model.json says of them. No path of a machine."""
        return {"version": self.package.version, "sha256": self.sha256}

    def looks(self) -> str:
        """`data.looks` of their model.json, which the trained model inherits; "" for none."""
        looks: str = self.package.model_json.get("data", {}).get("looks", "")
        return looks

    def check(self, architecture: Mapping[str, Any], network: str) -> None:
        """Raise ConfigError where they are not of the architecture that `--network` names."""
        of_package = self.package.model_json["architecture"]
        own = {name: of_package.get(name) for name in architecture}
        if own != architecture:
            raise ConfigError(
                f"--init-from {self.name} is a network of {_in_words(own)}, and --network "
                f"{network} is one of {_in_words(architecture)}: give the --network that it was "
                "trained with"
            )


def read_starting_weights(store: Store, config: TrainConfig) -> StartingWeights | None:
    """The package that `--init-from` names; None where the training starts from random weights.

    Raises NotFoundError where there is none, BadDataError where it is damaged.
    """
    name = config.init_from
    if not name:
        return None
    if name == "champion":
        name = _champion(store, f"{config.out.rstrip('/')}/models/{config.name}")
    if name.startswith("s3://"):
        models, _, version = name.rpartition("/")
        return StartingWeights(name, read_package(store, models, version))
    package = read_starter() if name == "starter" else read_local_package(Path(name))
    return StartingWeights(name, package)


def _champion(store: Store, models: str) -> str:
    """The URI of the champion's package."""
    champion, _ = read_champion(store, f"{models}/champion.json")
    if not champion:
        raise NotFoundError(
            f"--init-from champion: there is no {models}/champion.json: give starter or the URI of "
            "a version, or train from random weights first"
        )
    return f"{models}/{champion['version']}"


def _in_words(architecture: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(architecture.items()))
