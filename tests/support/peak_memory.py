"""A table of the most memory that each job takes, of honest films and of one hostile object.

usage: python -m tests.support.peak_memory

    job       the whole job, as its own process
    object    what one of the objects that it reads was replaced by; below 4 MB
    MiB over  the peak of its resident memory, less that of the same job with honest objects
    code      its exit code, and the start of its error
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.imaging.decode import encode_mask
from jobs.storage.local_server import embedded_s3
from jobs.storage.manifest import FileEntry, describe, hash_entries
from jobs.storage.s3 import Store
from tests.support.films import ROOT, write_montgomery

FILMS = 24
SIDE = 10_000  # 100 megapixels, the most that is read
LARGEST = 4 * 10**6  # bytes of a hostile object
# The safety of the machine: address space, which is several times the memory in use.
MOST_ADDRESSES = 32 * 2**30
WORDS = 12


@dataclass(frozen=True)
class Peak:
    """The end of a job: its peak of resident memory in MiB, exit code, result and last line."""

    mib: int
    code: int
    result: dict[str, Any]
    error: str


def run_job(store: Store, *arguments: str) -> Peak:
    """Run `python -m jobs ...` alone, and measure it."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))

    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", *arguments],
            cwd=ROOT,
            env=store.environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            preexec_fn=limited,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), errors.seek(0)
        lines, last = out.read().splitlines(), (errors.read().splitlines() or [""])[-1]
    result = json.loads(lines[-1]) if process.returncode == 0 else {}
    return Peak(usage.ru_maxrss // 1024, process.returncode, result, last)


# The chain


@dataclass
class Chain:
    """The jobs one after the other below `out`, each on the manifests of the ones before."""

    store: Store
    out: str

    def __post_init__(self) -> None:
        self.manifests: dict[str, str] = {}

    def arguments(self, job: str) -> list[str]:
        uri = self.manifests.get
        inputs: dict[str, list[str | None]] = {
            "preprocess": ["--raw", uri("download"), "--size=128", "--max-quarantined=0.9"],
            "train": ["--processed", uri("preprocess"), "--epochs=1", "--network=small"],
            "predict": ["--trained", uri("train"), "--films", uri("download")],
            "evaluate": ["--predictions", uri("predict"), "--processed", uri("preprocess")],
            "publish": [
                *("--raw", uri("download"), "--processed", uri("preprocess")),
                *("--trained", uri("train"), "--predictions", uri("predict")),
                *("--evaluation", uri("evaluate"), "--min-dice=0"),
            ],
            "inbox": ["--inbox", f"{str(uri('download')).rpartition('/')[0]}/films/"],
        }
        return [job, "--out", self.out, *map(str, inputs[job])]

    def run(self, job: str, *more: str) -> Peak:
        peak = run_job(self.store, *self.arguments(job), *more)
        self.manifests[job] = peak.result.get("manifest", "")
        return peak

    def download(self, folder: Path) -> Peak:
        peak = run_job(self.store, "download", "--source", folder.as_uri(), "--out", self.out)
        self.manifests["download"] = peak.result.get("manifest", "")
        return peak


JOBS = ("preprocess", "train", "predict", "evaluate", "publish", "inbox")


# Hostile films


def black(mode: str, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(stream, file_format, **options)
    return stream.getvalue()


def noisy_lung(left: int) -> bytes:
    """A mask of 100 megapixels of which every second pixel of a quarter is lung."""
    mask = np.zeros((SIDE, SIDE), np.bool_)
    columns = slice(left, left + SIDE // 2)
    mask[::2, columns][:, ::2] = mask[1::2, columns][:, 1::2] = True
    return encode_mask(mask)


def deep_color() -> bytes:
    """89 megapixels of 16-bit color."""
    import cv2

    _, packed = cv2.imencode(".png", np.zeros((9_400, 9_400, 3), np.uint16))
    return packed.tobytes()


LARGE_FILMS: dict[str, Callable[[], bytes]] = {
    "film: PNG, 100 megapixels": lambda: black("RGB", "PNG"),
    "film: 16-bit PNG, 88 megapixels": deep_color,
    "film: progressive CMYK JPEG, 100 megapixels": lambda: black("CMYK", "JPEG", progressive=True),
    "film: deflated TIFF, 100 megapixels": lambda: black(
        "RGB", "TIFF", compression="tiff_adobe_deflate"
    ),
}


def write_hostile_film(folder: Path, film: bytes, name: str = "MCUCXR_0003_1.png") -> None:
    """Honest films, one of which is replaced by `film`, its masks by noise of 100 megapixels."""
    write_montgomery(folder, FILMS)
    root = folder / "Montgomery" / "MontgomerySet"
    (root / "CXR_png" / name).write_bytes(film)
    for left, side in ((0, "leftMask"), (SIDE // 2, "rightMask")):
        (root / "ManualMask" / side / name).write_bytes(noisy_lung(left))


# Hostile objects


def deep(count: int) -> bytes:
    return b'{"epochs": ' + b"[" * count + b"]" * count + b"}"


def many_lists() -> bytes:
    return b'{"epochs": [' + b",".join([b"[[[[]]]]"] * 400_000) + b"]}"


def inflating_checkpoint() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(3 * 2**30 - 2**20))
    return stream.getvalue()


def packed_rows(size: int) -> tuple[bytes, str]:
    """(a gzip file of `size` bytes of JSON in one line, the sha256 of its content)."""
    packer, digest, packed = zlib.compressobj(9, wbits=31), hashlib.sha256(), []
    for start in range(0, size, len(block := b"[[[[]]]]" * 2**17)):
        part = block[: size - start]
        digest.update(part)
        packed.append(packer.compress(part))
    return b"".join((*packed, packer.flush())), digest.hexdigest()


def rewrite(store: Store, uri: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest's header and give it the content hash of its lists."""
    header = store.read_json(uri)
    change(header)
    entries = [FileEntry(**entry) for entry in (*header["parts"], *header["files"])]
    store.write_json(uri, header | {"content_hash": hash_entries(entries)})


def replace_file(store: Store, uri: str, key: str, data: bytes) -> None:
    """Replace a file that a manifest lists, and its entry."""
    assert len(data) < LARGEST, f"{key}: {len(data)} bytes"
    store.write(f"{uri.rpartition('/')[0]}/{key}", data)

    def change(header: dict[str, Any]) -> None:
        for name in ("files", "records"):
            header[name] = [
                asdict(describe(key, data)) if entry["key"] == key else entry
                for entry in header[name]
            ]

    rewrite(store, uri, change)


def replace_rows(store: Store, uri: str, text_size: int) -> None:
    """Replace the first part of a manifest's rows by one that inflates to `text_size` bytes."""
    packed, sha256 = packed_rows(text_size)
    assert len(packed) < LARGEST
    key = store.read_json(uri)["parts"][0]["key"]
    store.write(f"{uri.rpartition('/')[0]}/{key}", packed)
    rewrite(store, uri, lambda header: header["parts"][0].update(bytes=text_size, sha256=sha256))


def many_parts(store: Store, uri: str) -> None:
    part = {"key": "", "bytes": 0, "sha256": ""}
    rewrite(store, uri, lambda header: header.update(parts=[part] * 60_000))


def other_model(store: Store, uri: str, **changes: Any) -> None:
    """Change the architecture or recipe in model.json of a trained manifest."""
    model = store.read_json(f"{uri.rpartition('/')[0]}/model.json")
    for name, values in changes.items():
        model[name] |= values
    replace_file(store, uri, "model.json", json.dumps(model).encode())


LYING_WEIGHTS = (lambda header: len(header).to_bytes(8, "little") + header)(
    b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
)

Replace = Callable[[Store, dict[str, str]], object]
Hostile = tuple[str, str, Replace]
# By the job that reads the object: what replaces it.
HOSTILE: list[Hostile] = [
    ("preprocess", "rows that inflate to 2 GiB", lambda s, m: replace_rows(
        s, m["download"], 2**31)),
    ("preprocess", "rows of 15 MB in one line", lambda s, m: replace_rows(
        s, m["download"], 15 * 10**6)),
    ("preprocess", "a manifest of 60,000 parts", lambda s, m: many_parts(s, m["download"])),
    ("train", "last.pt of 3 GiB, deflated", lambda s, m: s.write(
        f"{m['train'].rpartition('/')[0]}/last.pt", inflating_checkpoint())),
    ("predict", "model.json: 16 channels, depth 8", lambda s, m: other_model(
        s, m["train"], architecture={"base_channels": 13, "depth": 8})),
    ("predict", "model.json: films of 2048 pixels", lambda s, m: other_model(
        s, m["train"], recipe={"spatial_size": 2048})),
    ("predict", "model.json: 100,000 lists in lists", lambda s, m: replace_file(
        s, m["train"], "model.json", deep(100_000))),
    ("predict", "weights that claim 4 GB", lambda s, m: replace_file(
        s, m["train"], "model.safetensors", LYING_WEIGHTS)),
    ("evaluate", "rows that inflate to 2 GiB", lambda s, m: replace_rows(s, m["predict"], 2**31)),
    ("publish", "history.json of 1,600,000 lists", lambda s, m: replace_file(
        s, m["train"], "history.json", many_lists())),
    ("publish", "contact sheet of 100 megapixels", lambda s, m: replace_file(
        s, m["preprocess"], "contact_sheet.png", black("RGB", "PNG"))),
]  # fmt: skip


def measure(
    store: Store, folder: Path, films: Sequence[str], objects: Sequence[Hostile]
) -> Iterator[tuple[str, str, int, Peak]]:
    """(job, object, MiB of the honest job, peak) of the honest jobs, then of every case."""
    write_montgomery(folder / "honest", FILMS)
    honest = Chain(store, f"s3://lung/{uuid.uuid4().hex}")
    usual = {"download": honest.download(folder / "honest")}
    for job in JOBS:
        usual[job] = honest.run(job)
        assert usual[job].code == 0, usual[job].error
    for job, peak in usual.items():
        yield job, "honest films", peak.mib, peak
    for number, name in enumerate(films):
        write_hostile_film(folder / str(number), LARGE_FILMS[name]())
        chain = Chain(store, f"s3://lung/{uuid.uuid4().hex}")
        yield "download", name, usual["download"].mib, chain.download(folder / str(number))
        for job in JOBS:
            yield job, name, usual[job].mib, chain.run(job)
    for job, name, replace in objects:
        yield job, name, usual[job].mib, hostile(honest, job, replace)


def hostile(honest: Chain, job: str, replace: Replace) -> Peak:
    """The job on the honest run's manifests with one object replaced, which is put back."""
    store, folder = honest.store, honest.out
    kept = {
        item.uri: store.read(item.uri)
        for item in store.list_objects(f"{folder}/")
        if item.bytes < LARGEST
    }
    manifests = dict(honest.manifests)
    if job != "train":
        # The job's own work is not there yet.
        replace(store, manifests)
        peak = run_job(store, *honest.arguments(job), "--run-id=hostile", "--force")
    else:
        store.delete([manifests[job]])
        replace(store, manifests)
        peak = run_job(store, *honest.arguments(job))
    for uri, data in kept.items():
        store.write(uri, data)
    return peak


def main() -> None:
    print(f"{'job':11} {'object':44} {'MiB':>5} {'over':>5}  code")
    with tempfile.TemporaryDirectory() as folder, embedded_s3(Path(folder) / "s3") as settings:
        store = Store(settings)
        store.ensure_bucket("s3://lung")
        for job, name, usual, peak in measure(store, Path(folder), [*LARGE_FILMS], HOSTILE):
            words = " ".join(peak.error.split()[3 : 3 + WORDS]) if peak.code else ""
            line = f"{job:11} {name:44} {peak.mib:>5} {peak.mib - usual:>5}  {peak.code} {words}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
