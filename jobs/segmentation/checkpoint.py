"""Checkpoints and weights as bytes: tensors and plain values only, so that loading runs no code."""

from __future__ import annotations

import io
import pickle
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
            # torch.save compresses nothing, and torch.load inflates without a bound.
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it has compressed members")
            if damaged := archive.testzip():
                raise ValueError(f"a wrong checksum in {damaged}")
        contents: dict[str, Any] = torch.load(
            io.BytesIO(data), map_location="cpu", weights_only=True
        )
        if not isinstance(contents, dict):
            raise ValueError(f"it holds a {type(contents).__name__}")
    except DAMAGE as error:
        raise BadDataError(
            f"the checkpoint of {len(data)} bytes is damaged ({_first_line(error)}): train again "
            "with --force"
        ) from error
    return contents


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
