"""Edits of files: damage that a disk, a network or a person does to bytes, JSON and rows."""

from __future__ import annotations

import copy
import gzip
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

SEED = 20
DEEP = 100_000
# Stand for JSON numbers that Python's json would not write.
TOO_LARGE, HUGE = "<1e400>", "<huge>"
LITERALS = {f'"{TOO_LARGE}"': "1e400", f'"{HUGE}"': "9" * 400}
# What replaces a field: other types, numbers out of every range, names out of their folder.
WRONG: dict[str, Any] = {
    "null": None,
    "true": True,
    "empty text": "",
    "text": "x",
    "path": "../../champion.json",
    "control": "a\nb\0",
    "surrogate": "\ud800",
    "negative": -1,
    "fraction": 0.5,
    "2^80": 2**80,
    "1e400": TOO_LARGE,
    "400 digits": HUGE,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "list": [],
    "list of null": [None],
    "object": {},
    "object of null": {"x": None},
}


class Edit(NamedTuple):
    name: str
    data: bytes


def dump(value: Any) -> bytes:
    """The JSON of a value, with the literals that json.dumps refuses."""
    text = json.dumps(value)
    for placeholder, literal in LITERALS.items():
        text = text.replace(placeholder, literal)
    return text.encode()


def byte_edits(data: bytes, seed: int = SEED) -> Iterator[Edit]:
    """Truncation, flipped bytes and foreign bytes of any file."""
    for share in (0, 0.1, 0.5, 0.9):
        yield Edit(f"truncated to {share:.0%}", data[: int(share * len(data))])
    yield Edit("truncated by one byte", data[:-1])
    generator = random.Random(f"{seed} {len(data)}")
    for _ in range(3):
        place = generator.randrange(len(data))
        flipped = data[:place] + bytes([data[place] ^ 0x80]) + data[place + 1 :]
        yield Edit("flipped byte", flipped)
    yield Edit("not UTF-8", b"\xff\xfe" + data)
    yield Edit("zeros", bytes(len(data)))
    yield Edit("trailing garbage", data + b"garbage")


def text_edits(data: bytes) -> Iterator[Edit]:
    """What editors do to a text file."""
    yield Edit("byte order mark", b"\xef\xbb\xbf" + data)
    yield Edit("CRLF", data.replace(b"\n", b"\r\n"))
    yield Edit("UTF-16", data.decode().encode("utf-16"))
    yield Edit("CSV", b"a,b\n1,2\n")


def json_edits(value: Any, each: int = 0, seed: int = SEED) -> Iterator[Edit]:
    """The whole and every field missing or replaced; `each` of WRONG a field, 0: all of them."""
    yield Edit("nested 100,000 deep", b"[" * DEEP + b"]" * DEEP)
    for name, wrong in WRONG.items():
        yield Edit(f"all: {name}", dump(wrong))
    if isinstance(value, dict):
        yield Edit("unknown field", dump(value | {"unknown": 1}))
    generator = random.Random(seed)
    for path in paths(value):
        where = ".".join(map(str, path))
        yield Edit(f"{where}: missing", dump(changed(value, path, None, remove=True)))
        names = generator.sample(sorted(WRONG), each) if each else sorted(WRONG)
        for name in names:
            yield Edit(f"{where}: {name}", dump(changed(value, path, WRONG[name])))


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every field; of a list, and of an object of objects, the first item alone."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
        if all(isinstance(item, dict) for item in value.values()):
            items = items[:1]
    elif isinstance(value, list):
        items = list(enumerate(value[:1]))
    for key, item in items:
        yield (*before, key)
        yield from paths(item, (*before, key))


def changed(value: Any, path: tuple[Any, ...], new: Any, *, remove: bool = False) -> Any:
    edited = copy.deepcopy(value)
    parent = edited
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = new
    return edited


def row_edits(packed: bytes, each: int = 0, seed: int = SEED) -> Iterator[Edit]:
    """A part of rows whose first row is edited, and parts with rows too many, too few or mixed."""
    lines = gzip.decompress(packed).splitlines()
    for edit in json_edits(json.loads(lines[0]), each, seed):
        yield Edit(f"row: {edit.name}", pack([edit.data, *lines[1:]]))
    yield Edit("a row twice", pack([lines[0], *lines]))
    yield Edit("a row instead of another", pack([lines[0], lines[0], *lines[2:]]))
    yield Edit("a row missing", pack(lines[1:]))
    yield Edit("no rows", pack([]))
    yield Edit("rows reversed", pack(lines[::-1]))
    yield Edit("an empty line", pack([b"", *lines]))
    yield Edit("half a row", pack([*lines[:-1], lines[-1][:20]]))
    yield Edit("rows not UTF-8", pack([b'{"id": "\xff"}', *lines[1:]]))
    yield Edit("rows with CRLF", gzip.compress(b"\r\n".join(lines) + b"\r\n", mtime=0))
    yield Edit("gzip of an image", gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(99), mtime=0))
    yield Edit("gzip of gzip", gzip.compress(packed, mtime=0))
    yield Edit("not gzip", b"\n".join(lines))


def pack(lines: list[bytes]) -> bytes:
    return gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0)


def safetensors_edits(data: bytes, each: int = 2, seed: int = SEED) -> Iterator[Edit]:
    """Weights whose header lies, or whose numbers are none."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    first = next(name for name in header if name != "__metadata__")

    def joined(text: bytes, rest: bytes = body) -> bytes:
        return struct.pack("<Q", len(text)) + text + rest

    about = header[first]
    lies: dict[str, Any] = {
        "offsets past the end": about | {"data_offsets": [0, 2**40]},
        "offsets reversed": about | {"data_offsets": about["data_offsets"][::-1]},
        "another type": about | {"dtype": "I32"},
        "an unknown type": about | {"dtype": "F31"},
        "another shape": about | {"shape": [1, *about["shape"]]},
        "a huge shape": about | {"shape": [2**40, 2**40]},
    }
    for name, lie in lies.items():
        yield Edit(name, joined(dump(header | {first: lie})))
    for edit in json_edits({first: about}, each, seed):
        yield Edit(f"header: {edit.name}", joined(edit.data))
    yield Edit("a weight renamed", joined(dump({"x": about, **without(header, first)})))
    yield Edit("a weight twice", joined(dump(header | {"x": about})))
    yield Edit("a length past the end", struct.pack("<Q", 2**63) + data[8:])
    yield Edit("NaN weights", joined(data[8 : 8 + length], b"\xff" * len(body)))
    yield Edit("empty header", joined(b"{}", b""))


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key != name}


class Hostile:
    """Unpickled by a loader that runs code, it would make the file `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return (open, (self.path, "w"))


def checkpoint_edits(data: bytes, witness: str, each: int = 2, seed: int = SEED) -> Iterator[Edit]:
    """A checkpoint whose contents are not those of a training; `witness` as of Hostile."""
    import io
    import pickle

    import torch

    def saved(contents: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(contents, stream)
        return stream.getvalue()

    contents = torch.load(io.BytesIO(data), weights_only=True)
    yield Edit("a hostile global", saved(contents | {"history": Hostile(witness)}))
    yield Edit("a hostile pickle", pickle.dumps(Hostile(witness)))
    yield Edit("a plain pickle", pickle.dumps({"model": {}}))
    yield Edit("a tensor alone", saved(torch.zeros(3)))
    wrong: dict[str, Any] = {
        **{name: value for name, value in WRONG.items() if name not in ("1e400", "400 digits")},
        "too large": float("inf"),
        "tensor": torch.zeros(3),
        "NaN tensor": torch.full((3,), torch.nan),
    }
    generator = random.Random(seed)
    for path in checkpoint_paths(contents):
        where = ".".join(map(str, path))
        yield Edit(f"{where}: missing", saved(changed(contents, path, None, remove=True)))
        for name in generator.sample(sorted(wrong), each) if each else sorted(wrong):
            yield Edit(f"{where}: {name}", saved(changed(contents, path, wrong[name])))
    nan = {name: torch.full_like(t.float(), torch.nan) for name, t in contents["model"].items()}
    yield Edit("NaN weights", saved(contents | {"model": nan}))
    yield Edit("a row of history twice", saved(contents | {"history": contents["history"] * 2}))
    yield Edit("more epochs than asked", saved(contents | {"history": contents["history"] * 99}))
    yield Edit("a weight more", saved(contents | {"model": contents["model"] | {"x": nan}}))


def checkpoint_paths(contents: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """The paths in a checkpoint, of the first and the last weight alone."""
    models = {id(contents["model"]), id((contents.get("best") or {}).get("model"))}
    for path in paths(contents):
        parent: Any = contents
        for key in path[:-1]:
            parent = parent[key]
        if id(parent) in models and path[-1] not in (next(iter(parent)), list(parent)[-1]):
            continue
        yield path
