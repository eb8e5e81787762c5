"""Going back to an earlier champion: the versions of a model, and champion.json written anew."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TypedDict

from jobs import typed_json
from jobs.errors import BadDataError, ConflictError, NotFoundError
from jobs.models.champion_entry import read_champion
from jobs.models.champion_rule import Decision
from jobs.models.package import read_package
from jobs.settings.config import PublishConfig
from jobs.settings.options import check
from jobs.storage.headers import InputJson
from jobs.storage.manifest import created_by
from jobs.storage.s3 import Store
from jobs.typed_json import Fraction

DAMAGED = "it is damaged: publish its run again, or give another version"


class RunDetails(TypedDict):
    model: str


class RunHeadline(TypedDict):
    val_dice: Fraction


class RunJson(TypedDict):
    """What going back to a version reads of run.json."""

    details: RunDetails
    headline: RunHeadline
    inputs: dict[str, InputJson]


def models_folder(out: str, name: str) -> str:
    """URI of models/<name>; ConfigError for an `out` or a `name` that publish would refuse."""
    metadata = {item.name: item.metadata for item in dataclasses.fields(PublishConfig)}
    check("out", out, metadata["out"])
    # --model is publish's --name.
    check("model", name, metadata["name"])
    return f"{out.rstrip('/')}/models/{name}"


def versions(store: Store, models: str) -> list[str]:
    """The versions with a model.json in the folder models/<name>, sorted."""
    keys = (item.uri.removeprefix(f"{models}/") for item in store.list_objects(f"{models}/"))
    parts = (key.split("/") for key in keys)
    return sorted(part[0] for part in parts if len(part) == 2 and part[1] == "model.json")


def table(store: Store, models: str) -> Iterator[str]:
    """A line a version: its name, its Dice on the validation films, whether it is the champion."""
    champion, _ = read_champion(store, f"{models}/champion.json")
    for version in _some_versions(store, models):
        dice = _val_dice(store.read_json(f"{models}/{version}/model.json"))
        figure = "no val dice" if dice is None else f"val dice {dice:.4f}"
        yield f"{version}  {figure}" + ("  champion" if version == champion.get("version") else "")


def restore(store: Store, out: str, models: str, version: str) -> dict[str, Any]:
    """Make the version the champion; the entry that champion.json has now.

    Raises NotFoundError where there is no such version, BadDataError where its package is not
    whole, ConflictError where a run changed the champion meanwhile.
    """
    known = _some_versions(store, models)
    if version not in known:
        raise NotFoundError(
            f"--version {version!r}: {models} has no such version, give one of {', '.join(known)}"
        )
    folder = f"{models}/{version}"
    try:
        model_json = read_package(store, models, version).model_json
    except (BadDataError, NotFoundError) as error:
        raise BadDataError(f"the package {folder} is not whole ({error}): {DAMAGED}") from error
    uri = f"{models}/champion.json"
    former, etag = read_champion(store, uri)
    if former.get("version") == version:
        return former
    since, person = created_by(time.time())["started"], _person()
    replaced = former.get("version")
    set_aside = {*former.get("set_aside", []), *([replaced] if replaced else [])} - {version}
    data, run = model_json.get("data", {}), _run_of(store, out, folder)
    val_dice = run.get("headline", {}).get("val_dice", _val_dice(model_json))
    decision = Decision(
        outcome="restored",
        reason=f"{person} went back to this version from {replaced or 'none'} on {since}.",
        version=version,
        val_dice=val_dice,
        champion_dice=None,
        min_dice=0.0,
        by=person,
    )
    entry: dict[str, Any] = {
        "version": version,
        "run_id": run.get("run_id", ""),
        "since": since,
        "model": folder,
        "processed": data.get("processed", ""),
        "set_aside": sorted(set_aside),
        "decision": asdict(decision),
    }
    if val_dice is not None:
        entry["val_dice"] = val_dice
    if processed := run.get("inputs", {}).get("processed"):
        sources = data.get("train_sources", [])
        entry["val_films"] = {"processed": processed["uri"], "train_sources": sources}
    try:
        store.write_json(uri, entry, if_absent=not etag, if_etag=etag)
    except ConflictError as error:
        raise ConflictError(f"a run changed {uri} meanwhile: look, and try again") from error
    return entry


def _some_versions(store: Store, models: str) -> list[str]:
    if not (found := versions(store, models)):
        raise NotFoundError(
            f"{models} has no version: give the --out and the --name that publish was given"
        )
    return found


def _run_of(store: Store, out: str, folder: str) -> dict[str, Any]:
    """run.json of a run that published the package, with its run_id; {} where none is left."""
    runs = f"{out.rstrip('/')}/runs/"
    for item in store.list_objects(runs):
        run_id, _, name = item.uri.removeprefix(runs).partition("/")
        if name == "run.json":
            # A damaged run.json of another run is no reason not to go back.
            with contextlib.suppress(BadDataError):
                run: dict[str, Any] = store.read_json(item.uri)
                typed_json.check(run, RunJson, item.uri, closed=False)
                if run["details"]["model"] == folder:
                    return run | {"run_id": run_id}
    return {}


def _val_dice(model_json: Any) -> float | None:
    """The Dice at the best epoch of the training; None where model.json does not tell."""
    try:
        return float(model_json["metrics"]["val_dice"])
    except (KeyError, TypeError, ValueError):
        return None


def _person() -> str:
    """The account that runs this command; its number where it has no name, as in a container."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}"
