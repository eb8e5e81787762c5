"""Measure many small objects to S3 and back: the project's store against boto3's transfers."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3

from jobs.storage.local_server import BUCKET, embedded_s3
from jobs.storage.s3 import THREADS, Store
from jobs.storage.s3_client import S3Settings
from tests.bench.rounds import Figure, alternate, ratio

COUNT, BYTES = 500, 300_000


def measure(rounds: int, folder: Path) -> dict[str, Figure]:
    """s3_many_small_vs_transfer: both sides use the same server and number of threads."""
    data = folder / "objects"
    data.mkdir()
    for number in range(COUNT):
        (data / str(number)).write_bytes(os.urandom(BYTES))
    with embedded_s3(folder / "s3") as settings:
        back = folder / "back"
        back.mkdir()
        sides = {
            "store": by_store(settings, data, back),
            "transfer": by_transfer(settings, data, back),
        }
        seconds = alternate(rounds, sides)
    against = f"upload_file and download_file, {COUNT} objects of {BYTES // 1000} KB"
    return {"s3_many_small_vs_transfer": ratio(seconds["transfer"], seconds["store"], against)}


def by_store(settings: S3Settings, data: Path, back: Path) -> Callable[[], None]:
    """A function that writes every file of `data` to S3 and reads it back into `back`."""
    store = Store(settings)
    uris = {f"s3://{BUCKET}/store/{path.name}": path for path in data.iterdir()}

    def round_trip() -> None:
        store.write_many((uri, path.read_bytes()) for uri, path in uris.items())
        for path, content in zip(uris.values(), store.read_many(uris), strict=True):
            (back / path.name).write_bytes(content)

    return round_trip


def by_transfer(settings: S3Settings, data: Path, back: Path) -> Callable[[], None]:
    """The same with boto3's `upload_file` and `download_file`."""
    client: Any = boto3.client(
        "s3",
        endpoint_url=settings.endpoint_url,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        region_name=settings.region,
    )

    def upload(path: Path) -> None:
        client.upload_file(str(path), BUCKET, f"transfer/{path.name}")

    def download(path: Path) -> None:
        client.download_file(BUCKET, f"transfer/{path.name}", str(back / path.name))

    def round_trip() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for transfer in (upload, download):
                list(pool.map(transfer, data.iterdir()))

    return round_trip
