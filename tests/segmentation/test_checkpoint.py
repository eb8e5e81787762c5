"""Checkpoints: contents come back, equal contents are equal bytes, damaged bytes are refused."""

from __future__ import annotations

import io
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import BadDataError
from jobs.segmentation import checkpoint
from jobs.segmentation.unet import UNet


def contents() -> dict[str, Any]:
    torch.manual_seed(0)
    model = UNet(base_channels=4, depth=1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [{"epoch": 1, "val_dice": 0.5}],
        "config": {"precision": "auto", "seed": 0},
    }


def test_a_checkpoint_gives_back_its_contents() -> None:
    saved = contents()
    loaded = checkpoint.from_bytes(checkpoint.to_bytes(saved))
    assert loaded.keys() == saved.keys()
    assert loaded["history"] == saved["history"] and loaded["config"] == saved["config"]
    for name, tensor in saved["model"].items():
        assert torch.equal(loaded["model"][name], tensor)
        assert loaded["model"][name].stride() == tensor.stride()
    assert loaded["optimizer"]["param_groups"][0]["betas"] == [0.9, 0.999]


def test_loading_runs_no_code(tmp_path: Any) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("run").touch, ())

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(BadDataError):
        checkpoint.from_bytes((tmp_path / "evil.pt").read_bytes())
    assert not (tmp_path / "run").exists()


def test_equal_contents_are_equal_bytes_whatever_shares_memory() -> None:
    weight = torch.arange(4.0)
    name = "".join(["we", "ight"])
    shared = OrderedDict([("a", weight), ("b", weight[:]), ("names", [name, name])])
    apart = {"a": weight.clone(), "b": weight.clone(), "names": ["weight", "weight"]}
    assert checkpoint.to_bytes(shared) == checkpoint.to_bytes(apart)
    saved = checkpoint.to_bytes(contents())
    assert (
        checkpoint.to_bytes(checkpoint.from_bytes(saved))
        == saved
        == checkpoint.to_bytes(contents())
    )


def test_a_part_of_a_tensor_is_saved_without_the_rest() -> None:
    assert len(checkpoint.to_bytes({"part": torch.zeros(100_000)[:10]})) < 10_000


@pytest.mark.parametrize("value", [np.float64(0.5), np.zeros(2), {1, 2}, b"bytes", object()])
def test_a_value_that_would_not_load_again_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        checkpoint.to_bytes({"value": value})


@pytest.mark.parametrize("length", [0, 1, 100, -200])
def test_a_cut_checkpoint_is_bad_data(length: int) -> None:
    with pytest.raises(BadDataError, match="--force"):
        checkpoint.from_bytes(checkpoint.to_bytes(contents())[:length])


def test_a_checkpoint_with_one_wrong_bit_is_bad_data() -> None:
    whole = checkpoint.to_bytes(contents())
    weights = contents()["model"]
    stored = next(iter(weights.values())).numpy().tobytes()
    at = whole.index(stored) + len(stored) // 2
    with pytest.raises(BadDataError, match="wrong checksum"):
        checkpoint.from_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


@pytest.mark.parametrize("data", [b"not a checkpoint", b"\0" * 64, b"PK\x03\x04" * 20])
def test_another_file_is_bad_data(data: bytes) -> None:
    with pytest.raises(BadDataError, match=f"{len(data)} bytes"):
        checkpoint.from_bytes(data)


def test_a_checkpoint_with_compressed_members_is_refused_before_they_inflate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(checkpoint.to_bytes({"a": torch.zeros(9)}))) as stored,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for name in stored.namelist():
            deflated.writestr(name, stored.read(name))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was inflated"))
    with pytest.raises(BadDataError, match=r"damaged \(it has compressed members\): train again"):
        checkpoint.from_bytes(stream.getvalue())


def archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in members.items():
            file.writestr(f"archive/{name}", data)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["data.pkl", "DATA.PKL"])
@pytest.mark.parametrize(
    ("constructor", "count"),
    [("builtins\nbytearray", 10**9), ("torch._utils\n_rebuild_qtensor", 1)],
)
def test_a_constructor_that_checkpoints_do_not_have_is_refused_before_it_is_called(
    name: str, constructor: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled = f"c{constructor}\n".encode() + b"J" + struct.pack("<i", count) + b"\x85R."
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was called"))
    with pytest.raises(BadDataError, match=rf"it holds a {constructor.replace(chr(10), ' ')}\)"):
        checkpoint.from_bytes(archive({name: b"\x80\x02" + pickled, "version": b"3\n"}))


def test_lists_that_hold_each_other_are_refused_for_their_text_would_have_no_end() -> None:
    # Each of 60 lists has the one before twice: the text of the last has 2^60 brackets.
    pickled = b"\x80\x02]q\x00" + b"".join(
        b"]q%c(h%ch%ce" % (number, number - 1, number - 1) for number in range(1, 61)
    )
    pickled += b"}X\x01\x00\x00\x00ah\x3cs."
    with pytest.raises(BadDataError, match="a list stands in two places"):
        checkpoint.from_bytes(archive({"data.pkl": pickled, "version": b"3\n"}))


def test_members_that_overlap_and_files_before_the_zip_are_refused() -> None:
    whole = checkpoint.to_bytes({"a": torch.zeros(999)})
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        size = max(member.file_size for member in file.infolist())
    assert size == 4 * 999
    # The directory, behind all members, claims the file's whole length for one.
    at = whole.rindex(struct.pack("<II", size, size))
    longer = whole[:at] + 2 * struct.pack("<I", len(whole)) + whole[at + 8 :]
    with pytest.raises(BadDataError, match="its members overlap"):
        checkpoint.from_bytes(longer)
    with pytest.raises(BadDataError, match="it does not begin as a zip"):
        checkpoint.from_bytes(b"x" + whole)


def test_weights_pass_through_safetensors_bit_by_bit() -> None:
    weights = contents()["model"]
    data = checkpoint.to_safetensors(weights)
    loaded = checkpoint.from_safetensors(data)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    assert checkpoint.to_safetensors(dict(reversed(loaded.items()))) == data


def test_cut_weights_are_bad_data() -> None:
    with pytest.raises(BadDataError, match="safetensors"):
        checkpoint.from_safetensors(checkpoint.to_safetensors(contents()["model"])[:-1])
