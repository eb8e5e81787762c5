"""model.json as types: what a network needs, and what later jobs read of its training."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

from jobs import typed_json
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.typed_json import Count, Fraction, Range, Sha256, Text

Version = Annotated[
    str, Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "the name of a folder in models/<name>/")
]
Base64 = Annotated[
    str,
    Text(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", "bytes in base64"),
]


class Recipe(TypedDict):
    """How films are placed for the network, and how its probabilities become masks."""

    spatial_size: Annotated[int, Range(1, 2048)]
    fit: Literal["stretch", "letterbox"]
    crop_borders: bool
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    threshold: NotRequired[Fraction]
    largest_components: NotRequired[Count]
    fill_holes: NotRequired[bool]
    review_below: NotRequired[Fraction]


class BestEpoch(TypedDict):
    """The epoch of the weights, from 1, and its Dice on the validation films."""

    epoch: Annotated[int, Range(1)]
    val_dice: Annotated[float, Range(0, 1 + 1e-5)]


class Sources(TypedDict):
    """The sources of the films that the network was trained on.

    looks: the perceptual hashes of the films that it was trained on or chosen by in an earlier
    training; of the starter, in its only one. `jobs.films.known_looks` reads them.
    """

    train_sources: list[str]
    looks: NotRequired[Base64]


class Data(Sources):
    """Those sources, and the numbers of films."""

    train_films: Count
    val_films: Count


class Weights(TypedDict):
    sha256: Sha256


class Origin(TypedDict):
    """The package whose weights a training started from."""

    version: Version
    sha256: Sha256


class Training(TypedDict):
    init_from: NotRequired[Origin]


class SourcesJson(TypedDict):
    """What the films that a network has seen are found by."""

    data: Sources
    training: NotRequired[Training]


class WeightsJson(TypedDict):
    """What tells whether two packages have the same weights."""

    weights: Weights


class NetworkJson(TypedDict):
    """What a network needs of model.json."""

    architecture: dict[str, int]
    recipe: Recipe


class TrainedJson(NetworkJson):
    """What publish needs of the model.json of a trained manifest."""

    metrics: BestEpoch
    data: Data


class PackageJson(NetworkJson):
    """The model.json of a package; version 0.1.0 has the same."""

    version: NotRequired[Version]
    weights: Weights
    data: NotRequired[Data]
    training: NotRequired[Training]
    metrics: NotRequired[dict[str, Any]]


def read_trained_json(store: Store, trained: Manifest, form: type) -> dict[str, Any]:
    """The model.json of a trained manifest, a `form` with more fields.

    Raises BadDataError where it is not one.
    """
    uri = trained.uri_of("model.json")
    value = typed_json.parse(trained.read_file(store, "model.json"), uri)
    return cast("dict[str, Any]", typed_json.check(value, form, uri, closed=False))


def read_package_json(store: Store, uri: str, form: type = PackageJson) -> dict[str, Any]:
    """The model.json of a package, a `form` with more fields.

    Raises BadDataError where it is not one.
    """
    return check_package_json(store.read(uri), uri, form)


def check_package_json(text: bytes, name: str, form: type = PackageJson) -> dict[str, Any]:
    """The content of a package's model.json; `name` is its name in errors.

    Raises BadDataError where it is no `form`, perhaps with more fields.
    """
    remedy = "it was edited or damaged, publish its run again or take another version"
    value = typed_json.parse(text, name, remedy)
    return cast("dict[str, Any]", typed_json.check(value, form, name, remedy=remedy, closed=False))
