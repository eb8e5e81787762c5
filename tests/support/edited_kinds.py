"""Every kind of file that a job reads, its edits, and the job that then reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tests.support.edited_run import TRAINING, EditedRun, Outcome, run
from tests.support.edits import (
    Edit,
    byte_edits,
    checkpoint_edits,
    json_edits,
    row_edits,
    safetensors_edits,
    text_edits,
)

# The last objects of a job: none of these may be new or changed where a job has failed. A package
# without a champion.json that names it is whole, and masks nothing.
PUBLISHED = (
    "/manifest.json",
    "/champion.json",
    "/run.json",
    "/report.html",
    "/masks.json",
)
MANIFESTS = ("raw", "processed", "trained", "predictions", "evaluation")


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        uri: of the object in a run.
        edits: of its bytes.
        arguments: of the job that reads it, without --out.
        copied: the prefixes below --out that hold the run's files when the job starts; where there
            are some, the edited file is one of the copies.
        sealed: whether the manifests have the hashes of the edited file.
    """

    name: str
    uri: Callable[[EditedRun], str]
    edits: Callable[[bytes], Iterator[Edit]]
    arguments: Callable[[EditedRun], Sequence[str]]
    copied: tuple[str, ...] = ()
    sealed: bool = False

    def outcome(self, edited: EditedRun, edit: Edit) -> Outcome:
        """How the job ends on the edited file; code -1 where it failed and yet published."""
        out, uri = (
            edited.beside(*self.copied) if self.copied else edited.beside("-"),
            self.uri(edited),
        )
        arguments = [*self.arguments(edited), "--out", out]
        if self.copied:
            edited.store.write(out + uri.removeprefix(edited.out), edit.data)
            before = published(edited, out)
            outcome = run(*arguments)
        else:
            before = published(edited, out)
            with edited.edited(uri, edit.data, sealed=self.sealed):
                outcome = run(*arguments)
        if outcome.code and (new := published(edited, out) - before):
            outcome.lines.append(f"published {sorted(new)}")
            outcome.code = -1
        return outcome


def published(edited: EditedRun, out: str) -> set[tuple[str, str]]:
    objects = edited.store.list_objects(out + "/")
    return {(item.uri, item.etag) for item in objects if item.uri.endswith(PUBLISHED)}


def key(pattern: str) -> Callable[[EditedRun], str]:
    """The first object of the run that ends with the pattern, below its folder."""
    folder, _, name = pattern.partition("*")

    def uri(edited: EditedRun) -> str:
        return min(
            uri
            for uri in edited.objects
            if uri.startswith(f"{edited.out}/{folder}") and uri.endswith(name)
        )

    return uri


def as_json(data: bytes, each: int) -> Iterator[Edit]:
    return chain(byte_edits(data), text_edits(data), json_edits(json.loads(data), each))


def preprocess(edited: EditedRun) -> list[str]:
    return ["preprocess", *edited.flags("raw"), "--size", "32"]


def train(edited: EditedRun) -> list[str]:
    return ["train", *edited.flags("processed"), *TRAINING]


def predict(edited: EditedRun) -> list[str]:
    return ["predict", *edited.flags("trained"), "--films", edited.manifests["raw"]]


def predict_package(edited: EditedRun) -> list[str]:
    package = key("models/*/model.json")(edited).rpartition("/")[0]
    return ["predict", "--trained", package, "--films", edited.manifests["raw"]]


def evaluate(edited: EditedRun) -> list[str]:
    return ["evaluate", *edited.flags("predictions", "processed")]


def publish(edited: EditedRun) -> list[str]:
    settings = ["--min-dice", "0", "--starter", "false", "--run-id", "one"]
    return ["publish", *edited.flags(*MANIFESTS), *settings]


def inbox(edited: EditedRun) -> list[str]:
    return ["inbox", "--inbox", edited.inbox, "--starter", "false", "--run-id", "two"]


def remask(edited: EditedRun) -> list[str]:
    return [*inbox(edited), "--force"]


def champion(edited: EditedRun) -> list[str]:
    return ["champion"]


def restore(edited: EditedRun) -> list[str]:
    version = edited.folder("trained").rpartition("/")[2]
    return ["champion", "--version", version]


def kinds(each: int, witness: Path) -> list[Kind]:
    """All kinds; `each` edits a field (0: all), a file `witness` that hostile code would make."""

    def whole(data: bytes) -> Iterator[Edit]:
        return as_json(data, each)

    def rows(data: bytes) -> Iterator[Edit]:
        return chain(byte_edits(data), row_edits(data, each))

    def sealed_rows(data: bytes) -> Iterator[Edit]:
        return row_edits(data, each)

    def weights(data: bytes) -> Iterator[Edit]:
        return chain(byte_edits(data), safetensors_edits(data, each))

    def checkpoint(data: bytes) -> Iterator[Edit]:
        return chain(byte_edits(data), checkpoint_edits(data, str(witness), each))

    def any_bytes(data: bytes) -> Iterator[Edit]:
        return byte_edits(data)

    readers = {
        "raw": (preprocess, predict),
        "processed": (train, evaluate),
        "trained": (predict, evaluate),
        "predictions": (evaluate,),
        "evaluation": (publish,),
    }
    result = []
    for name, jobs in readers.items():
        for job in jobs:

            def manifest(edited: EditedRun, name: str = name) -> str:
                return edited.manifests[name]

            result.append(Kind(f"{name} manifest, {job.__name__}", manifest, whole, job))
    for name in MANIFESTS:

        def manifest(edited: EditedRun, name: str = name) -> str:
            return edited.manifests[name]

        result.append(Kind(f"{name} manifest, publish", manifest, whole, publish))
    parts = {"raw": preprocess, "processed": train, "predictions": evaluate, "evaluation": publish}
    for name, job in parts.items():

        def part(edited: EditedRun, name: str = name) -> str:
            return edited.part(name)

        result.append(Kind(f"{name} rows", part, any_bytes, job))
        result.append(Kind(f"{name} rows, sealed", part, sealed_rows, job, sealed=True))
    for name, job in (("processed", evaluate), ("raw", predict), ("predictions", publish)):

        def part(edited: EditedRun, name: str = name) -> str:
            return edited.part(name)

        result.append(
            Kind(f"{name} rows, sealed, {job.__name__}", part, sealed_rows, job, sealed=True)
        )
    unfinished = {"processed": preprocess, "predictions": predict, "evaluations": evaluate}
    for folder, job in unfinished.items():
        uri = key(f"{folder}/*/rows/part-00000.jsonl.gz")
        result.append(Kind(f"unfinished {folder} rows", uri, rows, job, (f"{folder}/",)))
    sealed = [
        ("model.json", "trained/*/model.json", whole, predict),
        ("model.json, evaluate", "trained/*/model.json", whole, evaluate),
        ("model.json, publish", "trained/*/model.json", whole, publish),
        ("weights", "trained/*/model.safetensors", weights, predict),
        ("history.json", "trained/*/history.json", whole, publish),
        ("metrics.json", "evaluations/*/metrics.json", whole, publish),
        ("contact sheet", "processed/*/contact_sheet.png", any_bytes, publish),
        ("worst.png", "evaluations/*/worst.png", any_bytes, publish),
        ("processed image", "processed/*.png", any_bytes, train),
    ]
    for name, pattern, edits, job in sealed[:-1]:
        result.append(Kind(name + ", sealed", key(pattern), edits, job, sealed=True))
    result += [
        Kind("raw film", key("raw/*_1.png"), any_bytes, preprocess),
        Kind("last.pt", key("trained/*/last.pt"), checkpoint, train, ("trained/*/last.pt"[:8],)),
        Kind(
            "package model.json, publish", key("models/*/model.json"), whole, publish, ("models/",)
        ),
        Kind("package model.json, predict", key("models/*/model.json"), whole, predict_package),
        Kind("package model.json, inbox", key("models/*/model.json"), whole, remask, ("models/",)),
        Kind(
            "package model.json, champion",
            key("models/*/model.json"),
            whole,
            champion,
            ("models/",),
        ),
        Kind(
            "package weights, inbox", key("models/*.safetensors"), any_bytes, remask, ("models/",)
        ),
        Kind(
            "champion.json, inbox",
            key("models/*/champion.json"),
            whole,
            inbox,
            ("models/", "masks/"),
        ),
        Kind("champion.json, publish", key("models/*/champion.json"), whole, publish, ("models/",)),
        Kind("champion.json, restore", key("models/*/champion.json"), whole, restore, ("models/",)),
        Kind("run.json, restore", key("runs/*/run.json"), whole, restore, ("models/", "runs/")),
        Kind(
            "ledger", key("masks/*/ledger/part-000000.jsonl.gz"), rows, inbox, ("models/", "masks/")
        ),
    ]
    return result
