"""The job predict against its bare network, on the same films in the same run.

usage: python -m tests.bench.predict [ROUNDS [FOLDER]]

A film's way from S3 to its mask in S3 is timed as the job goes it; the bare network computes the
same squares in the same batches, one after the other on all cores, and nothing else. The rounds of
both take turns.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs import predict
from jobs.imaging import decode, geometry
from jobs.phantoms import source
from jobs.runtime.memory import keep_freed_memory
from jobs.runtime.profile import log_table, recording
from jobs.settings.config import PredictConfig
from jobs.storage.local_server import BUCKET, embedded_s3
from jobs.storage.manifest import Manifest
from jobs.storage.s3 import Store
from jobs.storage.timed_store import TimedStore
from jobs.storage.work_folder import rows_per_part
from tests.bench.dark_lung import dark_lung, write_trained
from tests.bench.launch import ROOT
from tests.bench.rounds import Figure, figure

OUT = f"s3://{BUCKET}/bench"
NETWORK, SIZE, PRECISION = "base", 512, "auto"
ROUNDS = 5
DRAWN = 6  # different films; the others are these again
GRAIN = 2.0  # gray levels of noise, which is most of a real film's bytes
# Key of the figure: (how many films, their height and width).
KINDS = {
    "predict_vs_model_only": (256, (768, 640)),
    "predict_full_size_vs_model_only": (16, (4892, 4020)),
}

Pixels = NDArray[np.uint8]


def measure(rounds: int, folder: Path) -> dict[str, Figure]:
    """Of each key of KINDS the job's films a second over the bare network's: median and range.

    In a process of its own, as the job runs, so that torch's threads are set up as there.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.predict", str(rounds), str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, Figure] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(rounds: int, folder: Path) -> None:
    keep_freed_memory()  # as the command line does
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("jobs.runtime.profile").setLevel(logging.INFO)
    with embedded_s3(folder / "s3") as settings:
        store = TimedStore(settings)
        trained = write_trained(store, OUT, NETWORK, SIZE, PRECISION)
        found = {
            key: compare(store, trained, count, shape, rounds)
            for key, (count, shape) in KINDS.items()
        }
    print(json.dumps(found), flush=True)


def compare(
    store: Store, trained: Manifest, count: int, shape: tuple[int, int], rounds: int
) -> Figure:
    prefix = f"{OUT}/films-{shape[0]}x{shape[1]}"
    drawn = [draw(number, shape) for number in range(DRAWN)]
    store.write_many((f"{prefix}/{n:05}.png", drawn[n % DRAWN]) for n in range(count))
    squares = [geometry.resize_film(decode.decode_film(film), SIZE, SIZE) for film in drawn]
    bare = bare_network(np.stack([squares[n % DRAWN] for n in range(count)]))

    def job() -> None:
        run_id = f"bench-{time.time_ns()}"
        config = PredictConfig(
            trained=trained.uri, films=prefix, out=OUT, force=True, run_id=run_id
        )
        assert predict.run(config, store).counts["masks"] == count

    bare()  # the first time, memory and kernels are looked for
    with recording() as profile:
        job()
    log_table("predict", profile.summary())
    pairs = [(cost(bare), cost(job)) for _ in range(rounds)]
    ratios = [alone.seconds / whole.seconds for alone, whole in pairs]
    films = f"{count} films of {shape[1]}x{shape[0]}"
    against = f"network {NETWORK} at {SIZE} pixels alone, batch after batch, {films}"
    print(against, file=sys.stderr)
    for name, costs in zip(("network", "job"), zip(*pairs, strict=True), strict=True):
        rate = count / statistics.median(one.seconds for one in costs)
        busy = 1000 * statistics.median(one.cpu for one in costs) / count
        print(f"  {name}: {rate:.1f} films/s, {busy:.0f} CPU-ms each", file=sys.stderr)
    return figure(ratios, "of the throughput", against)


def bare_network(squares: Pixels) -> Callable[[], None]:
    """The network on squares (N, S, S), in the batches that the job forms of as many films."""
    from jobs.segmentation import inference

    model = dark_lung(NETWORK).to(inference.local_device())
    part = rows_per_part(len(squares))
    parts = [squares[start : start + part] for start in range(0, len(squares), part)]

    def compute() -> None:
        for images in parts:
            inference.probabilities_of_all(model, images, precision=PRECISION)

    return compute


def draw(number: int, shape: tuple[int, int]) -> bytes:
    """A phantom as a PNG of that (height, width)."""
    height, width = shape
    film = cv2.resize(source.draw(0, number).image, (width, height)).astype(np.float32)
    film += np.random.default_rng(number).standard_normal(film.shape, np.float32) * GRAIN
    return decode.encode_png(np.clip(film.round(), 0, 255).astype(np.uint8))


class Cost(NamedTuple):
    """Seconds by the clock, and of this process on its cores; S3's server is another."""

    seconds: float
    cpu: float


def cost(work: Callable[[], None]) -> Cost:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - started, time.process_time() - cpu)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    if len(sys.argv) > 2:
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            print(json.dumps(measure(count, Path(scratch)), indent=2))
