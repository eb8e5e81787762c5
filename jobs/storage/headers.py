"""What manifests say beside the objects that they list, as types to check."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from jobs.typed_json import Count, Range, Text, Uri

Seconds = Annotated[float, Range(0)]
Moment = Annotated[str, Text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "a time as 2026-11-23T17:40:09Z")]


class Stage(TypedDict):
    """The work of a stage of a job, in seconds of all threads."""

    seconds: Seconds
    times: Count
    bytes: Count


class ProfileJson(TypedDict):
    """`jobs.runtime.profile.Profile.summary`."""

    wall_seconds: Seconds
    waited_seconds: Seconds
    threads: Count
    stages: dict[str, Stage]


class CreatedBy(TypedDict):
    revision: str
    image: str
    started: Moment
    seconds: float
    profile: NotRequired[ProfileJson]


class InputJson(TypedDict):
    """A manifest that the job read."""

    uri: Uri
    content_hash: str


class DownloadDetails(TypedDict):
    """Films of each layout, names of files, and files not used by reason."""

    layouts: dict[str, Count]
    without_mask: list[str]
    one_lung: list[str]
    masks_without_film: list[str]
    copies: list[str]
    ignored: dict[str, Count]


class PreprocessConfigJson(TypedDict):
    size: Annotated[int, Range(32, 2048)]
    fit: Literal["stretch", "letterbox"]
    crop_borders: bool
    splits: NotRequired[dict[str, Literal["train", "val", "test"]]]
    mask_values: NotRequired[Annotated[str, Text("[0-9a-fA-F#,]+", "values as 1,2 or #ff0000")]]


class PreprocessDetails(TypedDict):
    """Quarantined films and masks unlike lungs by reason, films of sources and labels by split.

    look_alikes: pairs of films that look the same and are in two splits.

    Version 0.1.0 counted the films of each "source/split".
    """

    reasons: dict[str, Count]
    unlike_lungs: NotRequired[dict[str, Count]]
    look_alikes: NotRequired[Count]
    by_source: dict[str, dict[str, Count] | Count]
    by_label: dict[str, dict[str, Count] | Count]


class PredictDetails(TypedDict):
    """package: the folder of the version that made the masks, where it was given by its URI."""

    package: NotRequired[Uri]


class EvaluateConfigJson(TypedDict):
    test_sources: str


# {job: the type of its settings} and {job: that of its details}, of those that later jobs read.
CONFIGS: dict[str, Any] = {"preprocess": PreprocessConfigJson, "evaluate": EvaluateConfigJson}
DETAILS: dict[str, Any] = {
    "download": DownloadDetails,
    "preprocess": PreprocessDetails,
    "predict": PredictDetails,
}
