"""Objects below 4 MB that ask a job for as much memory as they can, and where jobs read them."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from jobs.segmentation.history import EpochRow
from jobs.storage.manifest import LARGEST_ROW, LARGEST_ROWS, FileEntry, describe, hash_entries
from jobs.storage.s3 import Store
from tests.support.hostile_films import LARGEST, SIDE, black

# The URI of each job's manifest.
Manifests = Mapping[str, str]
# Replaces an object; returns the arguments that the job gets more.
Replace = Callable[[Store, Manifests], list[str]]


class Hostile(NamedTuple):
    """What a job is given, and how it gets there."""

    job: str
    name: str
    replace: Replace


# Bytes


def lists(count: int) -> bytes:
    """`count` lists in four lists each: what takes the most memory of all JSON."""
    return b"[" + b",".join([b"[[[[]]]]"] * count) + b"]"


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def zeros() -> Iterable[bytes]:
    return itertools.repeat(bytes(2**20), 2**11)


def rows_of_lists() -> Iterable[bytes]:
    """Lines of lists, as long and as many as are read."""
    line = b'{"origin": "", "etag": "", "status": "ok", "run_id": "a", "x": ['
    line += b"[]," * ((LARGEST_ROW - len(line)) // 3 - 2) + b"0]}\n"
    return itertools.repeat(line, LARGEST_ROWS // len(line))


def one_line(size: int) -> Iterable[bytes]:
    return itertools.repeat(b"[[[[]]]]", size // 8)


def packed(parts: Iterable[bytes]) -> tuple[bytes, str, int]:
    """(a gzip file, the sha256 of its content, the content's bytes)."""
    packer, digest, size, out = zlib.compressobj(9, wbits=31), hashlib.sha256(), 0, []
    for part in parts:
        digest.update(part)
        size += len(part)
        out.append(packer.compress(part))
    return b"".join((*out, packer.flush())), digest.hexdigest(), size


def archive(members: Mapping[str, Iterable[bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, parts in members.items():
            with file.open(name, "w", force_zip64=True) as member:
                member.writelines(parts)
    return stream.getvalue()


def bytearrays() -> bytes:
    """A checkpoint of 500 bytes that asks for a gigabyte three times."""
    one = b"cbuiltins\nbytearray\nJ" + struct.pack("<i", 10**9) + b"\x85R"
    pickled = b"\x80\x02](" + 3 * one + b"e."
    return archive({"archive/data.pkl": [pickled], "archive/version": [b"3\n"]})


def empty_members() -> bytes:
    """A zip of as many empty images as fit."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for number in range(LARGEST // 110):
            file.writestr(f"{number}.png", b"")
    return stream.getvalue()


LYING_WEIGHTS = (lambda header: len(header).to_bytes(8, "little") + header)(
    b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
)


# Their places in S3


def beside(uri: str, key: str) -> str:
    return f"{uri.rpartition('/')[0]}/{key}"


def write(store: Store, uri: str, data: bytes) -> list[str]:
    assert len(data) < LARGEST, f"{uri}: {len(data)} bytes"
    store.write(uri, data)
    return []


def rewrite(
    store: Store, manifests: Manifests, job: str, change: Callable[[dict[str, Any]], None]
) -> list[str]:
    """Change a manifest, and what it and those made from it say of its content."""
    uri = manifests[job]
    header = store.read_json(uri)
    change(header)
    entries = [FileEntry(**entry) for entry in (*header["parts"], *header["files"])]
    header["content_hash"] = hash_entries(entries)
    write(store, uri, json.dumps(header).encode())
    for other in set(manifests.values()) - {uri}:
        made = store.read_json(other)
        for source in made["inputs"].values():
            if source["uri"] == uri:
                source["content_hash"] = header["content_hash"]
        store.write_json(other, made)
    return []


def replace_file(key: str, data: Callable[[], bytes], job: str) -> Replace:
    """Replace a file that a manifest lists."""

    def replace(store: Store, manifests: Manifests) -> list[str]:
        new = data()
        write(store, beside(manifests[job], key), new)

        def change(header: dict[str, Any]) -> None:
            for name in ("files", "records"):
                header[name] = [
                    asdict(describe(key, new)) if entry["key"] == key else entry
                    for entry in header[name]
                ]

        return rewrite(store, manifests, job, change)

    return replace


def replace_rows(job: str, parts: Callable[[], Iterable[bytes]]) -> Replace:
    """Replace the first part of a manifest's rows."""

    def replace(store: Store, manifests: Manifests) -> list[str]:
        data, sha256, size = packed(parts())
        part = store.read_json(manifests[job])["parts"][0]
        write(store, beside(manifests[job], part["key"]), data)
        entry = part | {"bytes": size, "sha256": sha256}
        return rewrite(store, manifests, job, lambda header: header["parts"].__setitem__(0, entry))

    return replace


def repeat_part(store: Store, manifests: Manifests) -> list[str]:
    """As many parts in a manifest as fit, each the first."""

    def change(header: dict[str, Any]) -> None:
        part = header["parts"][0]
        header["parts"] = [part] * ((LARGEST - 100_000) // len(json.dumps(part) + ", "))

    return rewrite(store, manifests, "download", change)


def other_model(**changes: dict[str, Any]) -> Replace:
    """Change the architecture or recipe in model.json, and the weights to ones that lie."""

    def replace(store: Store, manifests: Manifests) -> list[str]:
        model = store.read_json(beside(manifests["train"], "model.json"))
        for name, values in changes.items():
            model[name] |= values
        replace_file("model.json", lambda: json.dumps(model).encode(), "train")(store, manifests)
        return replace_file("model.safetensors", lambda: LYING_WEIGHTS, "train")(store, manifests)

    return replace


def argument(name: str, data: Callable[[], bytes], ending: str) -> Replace:
    """Put a file where an argument of the job names it."""

    def replace(store: Store, manifests: Manifests) -> list[str]:
        uri = beside(manifests["download"], f"hostile{ending}")
        write(store, uri, data())
        return [f"{name}={uri}"]

    return replace


def model_file(key: str, data: Callable[[], bytes]) -> Replace:
    """Put a file into models/lung-unet/."""

    def replace(store: Store, manifests: Manifests) -> list[str]:
        return write(store, f"{_out(manifests)}/models/lung-unet/{key}", data())

    return replace


def result_file(store: Store, manifests: Manifests) -> list[str]:
    return write(store, f"{_out(manifests)}/runs/hostile/results/a-0-1.json", lists(400_000))


def ledger_part(parts: Callable[[], Iterable[bytes]]) -> Replace:
    def replace(store: Store, manifests: Manifests) -> list[str]:
        version = store.read_json(f"{_out(manifests)}/models/lung-unet/champion.json")["version"]
        folder = f"{_out(manifests)}/masks/lung-unet/{version}/ledger"
        return write(store, f"{folder}/part-000099.jsonl.gz", packed(parts())[0])

    return replace


def checkpoint(data: Callable[[], bytes]) -> Replace:
    """The last.pt of a training whose manifest is not there yet."""

    def replace(store: Store, manifests: Manifests) -> list[str]:
        store.delete([manifests["train"]])
        return write(store, beside(manifests["train"], "last.pt"), data())

    return replace


def _out(manifests: Manifests) -> str:
    return manifests["download"].rsplit("/", 3)[0]


def _history() -> bytes:
    return b'{"epochs": ' + lists(440_000) + b"}"


def _numbers() -> bytes:
    return b'{"epochs": [' + b"1," * 1_900_000 + b"1]}"


def _inflating() -> bytes:
    content = itertools.chain(zeros(), itertools.islice(zeros(), 2**10))
    return archive({"archive/data/0": content}, zipfile.ZIP_DEFLATED)


def _cells() -> bytes:
    return b"film,patient," + b"ab," * 1_300_000


def _lines() -> bytes:
    return b"film,patient\n" + b"".join(b"%d,a\n" % number for number in range(430_000))


OBJECTS = [
    Hostile("download", "a zip of 36,000 members", argument("--source", empty_members, ".zip")),
    Hostile("download", "--patients of one line", argument("--patients", _cells, ".csv")),
    Hostile("download", "--patients of 430,000 lines", argument("--patients", _lines, ".csv")),
    Hostile("preprocess", "--split-file of one line", argument("--split-file", _cells, ".csv")),
    Hostile("preprocess", "rows that inflate to 2 GiB", replace_rows("download", zeros)),
    Hostile(
        "preprocess",
        "rows of 15 MB in one line",
        replace_rows("download", lambda: one_line(15 * 10**6)),
    ),
    Hostile("preprocess", "rows: 16 MiB of lists", replace_rows("download", rows_of_lists)),
    Hostile("preprocess", "a manifest of 31,000 parts", repeat_part),
    Hostile("train", "rows: 16 MiB of lists", replace_rows("preprocess", rows_of_lists)),
    Hostile("train", "last.pt: 3 GiB, deflated", checkpoint(_inflating)),
    Hostile("train", "last.pt: constructors of 3 GB", checkpoint(bytearrays)),
    Hostile(
        "predict",
        "model.json: base 13, depth 8; weights that lie",
        other_model(architecture={"base_channels": 13, "depth": 8}),
    ),
    Hostile("predict", "weights that claim 4 GB", other_model()),
    Hostile(
        "predict",
        "model.json: 1,900,000 lists in lists",
        replace_file("model.json", lambda: nested(1_900_000), "train"),
    ),
    Hostile(
        "predict",
        "model.json: 1,600,000 lists",
        replace_file("model.json", lambda: lists(400_000), "train"),
    ),
    Hostile("evaluate", "rows that inflate to 2 GiB", replace_rows("predict", zeros)),
    Hostile("evaluate", "rows: 16 MiB of lists", replace_rows("predict", rows_of_lists)),
    Hostile(
        "publish", "history.json: 1,760,000 lists", replace_file("history.json", _history, "train")
    ),
    Hostile(
        "publish",
        "history.json: 1,900,000 numbers",
        replace_file("history.json", _numbers, "train"),
    ),
    Hostile(
        "publish",
        "metrics.json: 1,600,000 lists",
        replace_file("metrics.json", lambda: lists(400_000), "evaluate"),
    ),
    Hostile(
        "publish",
        "contact sheet of 100 megapixels",
        replace_file("contact_sheet.png", lambda: black(SIDE, "RGB", "PNG"), "preprocess"),
    ),
    Hostile("publish", "a task's result: 1,600,000 lists", result_file),
    Hostile(
        "publish",
        "champion.json: 1,600,000 lists",
        model_file("champion.json", lambda: lists(400_000)),
    ),
    Hostile(
        "inbox",
        "champion.json: 1,600,000 lists",
        model_file("champion.json", lambda: lists(400_000)),
    ),
    Hostile("inbox", "ledger: a part that inflates to 2 GiB", ledger_part(zeros)),
    Hostile("inbox", "ledger: a part of 16 MiB of lists", ledger_part(rows_of_lists)),
]


def _many_rows() -> bytes:
    row = dict.fromkeys(EpochRow.__annotations__, 0.5)
    return b'{"epochs": [' + b", ".join([json.dumps(row).encode()] * 20_000) + b"]}"


# By name, what Airflow's tab reads as history.json and curves.svg, and a task as its result.
TAB_FILES: dict[str, Callable[[], bytes]] = {
    "history.json, result: 1,760,000 lists": _history,
    "history.json, result: 1,900,000 numbers": _numbers,
    "history.json, result: 20,000 epochs": _many_rows,
    "history.json, result: 1,900,000 lists in lists": lambda: nested(1_900_000),
}
