"""Checkpoints and weights as bytes: tensors and plain values only, so that loading runs no code."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import sys
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from jobs.errors import BadDataError

# The exceptions of zipfile, torch and safetensors on damaged bytes.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    MemoryError,
    OSError,
    TypeError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    NotImplementedError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)

# The first bytes of torch's format of today; torch.load reads other files in ways of its own.
ZIP = b"PK\x03\x04"
# Characters of a constructor in an error.
LONGEST_SHOWN = 60
# The constructors that `to_bytes` writes. weights_only allows others, such as bytearray, whose few
# bytes in a file take any memory.
CONSTRUCTORS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage"
)


def to_bytes(contents: Mapping[str, Any]) -> bytes:
    """The file that `torch.load(..., weights_only=True)` reads; equal contents give equal bytes.

    Raises TypeError for values other than tensors, numbers, strings, None, and lists and dicts.
    """
    stream = io.BytesIO()
    torch.save(_plain(contents), stream)
    return stream.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """The contents, on the CPU. Raises BadDataError where `data` is not a whole checkpoint."""
    try:
        # torch.load does not check the checksums.
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive, data)
            if damaged := archive.testzip():
                raise ValueError(f"a wrong checksum in {damaged}")
            _check_constructors(archive)
        contents: dict[str, Any] = torch.load(
            io.BytesIO(data), map_location="cpu", weights_only=True
        )
        if not isinstance(contents, dict):
            raise ValueError(f"it holds a {type(contents).__name__}")
        _check_tree(contents, set())
    except DAMAGE as error:
        raise BadDataError(
            f"the checkpoint of {len(data)} bytes is damaged ({_first_line(error)}): train again "
            "with --force"
        ) from error
    return contents


def _check_members(archive: zipfile.ZipFile, data: bytes) -> None:
    """Raise ValueError where torch.load would take more memory for the members than the file."""
    members = archive.infolist()
    if not data.startswith(ZIP):
        raise ValueError("it does not begin as a zip")
    # torch.save compresses nothing, and torch.load inflates without a bound.
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it has compressed members")
    if sum(member.file_size for member in members) > len(data):
        raise ValueError("its members overlap")


def _check_constructors(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for one that `to_bytes` does not write."""
    for name in archive.namelist():
        # torch.load finds its members in lower and upper case.
        if name.lower().endswith("data.pkl"):
            for opcode, argument, _ in pickletools.genops(archive.read(name)):
                if opcode.name == "GLOBAL" and not CONSTRUCTORS.fullmatch(str(argument)):
                    raise ValueError(f"it holds a {str(argument)[:LONGEST_SHOWN]}")


def _check_tree(value: Any, seen: set[int]) -> None:
    """Raise ValueError where a list, tuple or dict stands in two places: its text may be endless.

    Tensors may share their memory.
    """
    if not isinstance(value, dict | list | tuple) or not value:
        return
    if id(value) in seen:
        raise ValueError(f"a {type(value).__name__} stands in two places")
    seen.add(id(value))
    if isinstance(value, dict) and not all(isinstance(key, str | int) for key in value):
        raise ValueError("a dict has other keys than texts and numbers")
    for item in value.values() if isinstance(value, dict) else value:
        _check_tree(item, seen)


def to_safetensors(state_dict: Mapping[str, Tensor]) -> bytes:
    """The weights in the safetensors format; equal weights give equal bytes."""
    return safetensors.torch.save({name: t.cpu().contiguous() for name, t in state_dict.items()})


def from_safetensors(data: bytes) -> dict[str, Tensor]:
    """The weights by name, on the CPU.

    Raises BadDataError where `data` is not safetensors, or a weight is not a finite number.
    """
    try:
        weights = safetensors.torch.load(data)
        for name, weight in weights.items():
            if not bool(weight.isfinite().all()):
                raise ValueError(f"{name} has numbers that are not finite")
        return weights
    except (SafetensorError, *DAMAGE) as error:
        raise BadDataError(
            f"the weights of {len(data)} bytes are damaged ({_first_line(error)}): give a "
            "safetensors file"
        ) from error


def _plain(value: Any) -> Any:
    """A deep copy whose bytes depend on its values alone: torch.save writes shared objects once."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return sys.intern(value)
    if value is None or type(value) in (bool, int, float):
        return value
    raise TypeError(
        f"a checkpoint holds no {type(value).__name__}: give tensors, numbers, strings, None, or "
        "lists and dicts of them"
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
