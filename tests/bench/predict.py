"""Measure the job predict against its bare network, on the same films in the same run.

usage: python -m tests.bench.predict [ROUNDS [FOLDER [FILM_SETS SECONDS]]]

The job's time runs from a film in S3 to its mask in S3. The bare network computes the same squares
in the same batches, one batch after another on all cores, and nothing else. Their rounds alternate.
"""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs import predict
from jobs.imaging import decode, encode, geometry
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
# Distinct films; the set repeats them.
DISTINCT = 6
# Standard deviation of the noise in gray levels; noise is most of the bytes of a real film's file.
GRAIN = 2.0
FilmSets: TypeAlias = Mapping[str, tuple[int, tuple[int, int]]]
# {key of the figure: (number of films, their (height, width))}
FILM_SETS: FilmSets = {
    "predict_vs_model_only": (256, (768, 640)),
    "predict_full_size_vs_model_only": (16, (4892, 4020)),
}

Pixels = NDArray[np.uint8]


def measure(
    rounds: int,
    folder: Path,
    film_sets: FilmSets = FILM_SETS,
    *,
    seconds: float = math.inf,
    most_seconds: float | None = None,
    stderr: IO[str] | None = None,
) -> dict[str, Figure]:
    """For each key of `film_sets` the job's films per second over the bare network's.

    Runs in a separate process, as the job does, so that torch sets up its threads as in the job.
    After `seconds` no further round of a set starts; after `most_seconds` this raises
    subprocess.TimeoutExpired. `stderr` takes the rates and the profile.
    """
    settings = [str(rounds), str(folder), json.dumps(film_sets), str(seconds)]
    process = subprocess.run(
        [sys.executable, "-m", "tests.bench.predict", *settings],
        cwd=ROOT,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        check=True,
        timeout=most_seconds,
    )
    figures: dict[str, Figure] = json.loads(process.stdout.splitlines()[-1])
    return figures


def main(rounds: int, folder: Path, film_sets: FilmSets, seconds: float) -> None:
    # The command line does the same at its start.
    keep_freed_memory()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("jobs.runtime.profile").setLevel(logging.INFO)
    with embedded_s3(folder / "s3") as settings:
        store = TimedStore(settings)
        trained = write_trained(store, OUT, NETWORK, SIZE, PRECISION)
        figures = {
            key: compare(store, trained, count, shape, rounds, seconds)
            for key, (count, shape) in film_sets.items()
        }
    print(json.dumps(figures), flush=True)


def compare(
    store: Store,
    trained: Manifest,
    count: int,
    shape: tuple[int, int],
    rounds: int,
    seconds: float = math.inf,
) -> Figure:
    """The job's throughput on `count` films of (height, width) `shape`, over its network's.

    One round is measured in any case; no other one starts that would end after `seconds`. The
    figure also has "films_per_second": {"network": ..., "job": ...}, the median rates.
    """
    deadline = time.monotonic() + seconds
    prefix = f"{OUT}/films-{shape[0]}x{shape[1]}"
    distinct = [draw(number, shape) for number in range(DISTINCT)]
    store.write_many((f"{prefix}/{n:05}.png", distinct[n % DISTINCT]) for n in range(count))
    squares = [geometry.resize_film(decode.decode_film(film), SIZE, SIZE) for film in distinct]
    bare = bare_network(np.stack([squares[n % DISTINCT] for n in range(count)]))

    def job() -> None:
        run_id = f"bench-{time.time_ns()}"
        config = PredictConfig(
            trained=trained.uri, films=prefix, out=OUT, force=True, run_id=run_id
        )
        assert predict.run(config, store).counts["masks"] == count

    # The first pass is not timed: it allocates memory and selects kernels.
    bare()
    with recording() as profile:
        job()
    log_table("predict", profile.summary())
    pairs = [(cost(bare), cost(job))]
    last = sum(side.seconds for side in pairs[0])
    while len(pairs) < rounds and time.monotonic() + last < deadline:
        pairs.append((cost(bare), cost(job)))
    ratios = [network.seconds / whole.seconds for network, whole in pairs]
    films = f"{count} films of {shape[1]}x{shape[0]}"
    against = f"network {NETWORK} at {SIZE} pixels alone, batch after batch, {films}"
    print(against, file=sys.stderr)
    rates = {}
    for name, costs in zip(("network", "job"), zip(*pairs, strict=True), strict=True):
        rates[name] = count / statistics.median(cost.seconds for cost in costs)
        cpu_ms = 1000 * statistics.median(cost.cpu for cost in costs) / count
        print(f"  {name}: {rates[name]:.1f} films/s, {cpu_ms:.0f} CPU-ms per film", file=sys.stderr)
    return figure(ratios, "of the throughput", against) | {"films_per_second": rates}


def bare_network(squares: Pixels) -> Callable[[], None]:
    """A function that runs the network on squares (N, S, S), in the job's batches of N films."""
    from jobs.segmentation import inference

    model = dark_lung(NETWORK).to(inference.local_device())
    part = rows_per_part(len(squares))
    parts = [squares[start : start + part] for start in range(0, len(squares), part)]
    # Once, as in the job: on a GPU it computes a batch.
    most = inference.films_at_once(model, squares.shape[-1], precision=PRECISION)

    def compute() -> None:
        for images in parts:
            for batch in inference.in_batches(range(len(images)), most):
                films = images[batch[0] : batch[-1] + 1]
                inference.probabilities(model, films, precision=PRECISION)

    return compute


def draw(number: int, shape: tuple[int, int]) -> bytes:
    """A phantom with noise as a PNG of (height, width) `shape`."""
    height, width = shape
    film = cv2.resize(source.draw(0, number).image, (width, height)).astype(np.float32)
    film += np.random.default_rng(number).standard_normal(film.shape, np.float32) * GRAIN
    return encode.encode_png(np.clip(film.round(), 0, 255).astype(np.uint8))


class Cost(NamedTuple):
    """Wall-clock seconds, and CPU-seconds of this process, which exclude the S3 server's."""

    seconds: float
    cpu: float


def cost(work: Callable[[], None]) -> Cost:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - started, time.process_time() - cpu)


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    if len(sys.argv) > 3:
        main(rounds, Path(sys.argv[2]), json.loads(sys.argv[3]), float(sys.argv[4]))
    elif len(sys.argv) > 2:
        print(json.dumps(measure(rounds, Path(sys.argv[2])), indent=2))
    else:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            print(json.dumps(measure(rounds, Path(scratch)), indent=2))
