"""champion.json as types, and its reading."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

from jobs import typed_json
from jobs.errors import NotFoundError
from jobs.films.model_json import Version
from jobs.storage.bounds import LARGEST_JSON
from jobs.storage.s3 import Store
from jobs.typed_json import Count, Fraction, Range, Uri

REMEDY = (
    "it was edited or damaged: delete it, and the next model that reaches the minimum becomes the "
    "champion"
)


class ValFilms(TypedDict):
    """The processed manifest of the films that the champion was validated on, and their sources."""

    processed: Uri
    train_sources: list[str]


class ComparisonJson(TypedDict):
    """A `jobs.models.contest_films.Comparison`."""

    films_of: Literal["challenger", "champion", "both"]
    films: dict[str, Count]
    patients: Count
    challenger: Fraction
    champion: Fraction
    low: Annotated[float, Range(-1, 1)] | None
    high: Annotated[float, Range(-1, 1)] | None
    incumbent: NotRequired[Literal["champion", "starter"]]


class DecisionJson(TypedDict):
    """A `jobs.models.champion.Decision`; one of version 0.1.0 has the first fields alone."""

    outcome: Literal["first", "replaced", "kept", "none", "restored"]
    reason: str
    version: Version | None
    val_dice: Fraction | None
    champion_dice: Fraction | None
    min_dice: Fraction
    compared: NotRequired[list[ComparisonJson]]
    missing: NotRequired[str]
    forced: NotRequired[str]
    by: NotRequired[str]
    starter: NotRequired[bool]
    seen: NotRequired[Count]


class ChampionJson(TypedDict):
    """The content of champion.json; a person who goes back to a version may leave fields out."""

    version: Version
    val_dice: NotRequired[Fraction]
    run_id: NotRequired[str]
    since: NotRequired[str]
    model: NotRequired[str]
    processed: NotRequired[str]
    val_films: NotRequired[ValFilms]
    set_aside: NotRequired[list[Version]]
    decision: NotRequired[DecisionJson]


def read_champion(store: Store, uri: str) -> tuple[dict[str, Any], str]:
    """(content of champion.json, its ETag); ({}, "") where there is no champion.

    Raises BadDataError where the file is not a `ChampionJson`, perhaps with more fields.
    """
    try:
        data, etag = store.read_tagged(uri, largest=LARGEST_JSON)
    except NotFoundError:
        return {}, ""
    entry = typed_json.parse(data, uri, REMEDY)
    typed_json.check(entry, ChampionJson, uri, remedy=REMEDY, closed=False)
    return cast("dict[str, Any]", entry), etag
