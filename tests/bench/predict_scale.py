"""Measure predict on many small films: memory, throughput, and the time to resume after a kill.

usage: python -m tests.bench.predict_scale [--films 20000] [--to artifacts]

The films lie in an embedded S3 server; the job runs as a process, as Airflow starts it. Writes
memory.json and memory.png: resident MiB of the job over the number of films done.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jobs.imaging import encode
from jobs.storage.local_server import BUCKET, embedded_s3
from jobs.storage.s3 import Store
from jobs.storage.work_folder import rows_per_part
from tests.bench.dark_lung import write_trained
from tests.bench.launch import ROOT
from tests.support.films import draw_pair

OUT = f"s3://{BUCKET}/scale"
NETWORK, SIZE = "small", 64
# Distinct films, whose sides in pixels repeat in this order; the set repeats the films.
DISTINCT, SIDES = 24, (64, 80, 96)
SECONDS_BETWEEN, SECONDS_TO_RESUME = 0.5, 600
# The job is killed once this share of the films is done.
KILLED_AT = 0.5


@dataclass(frozen=True)
class Sample:
    """The running job: seconds since its start, films whose rows are in S3, resident MiB."""

    seconds: float
    films: int
    mebibytes: float


class Scale:
    """`count` films in S3 and the job that masks all of them in one shard."""

    def __init__(self, store: Store, count: int) -> None:
        self.store = store
        self.count = count
        self.trained = write_trained(store, OUT, NETWORK, SIZE, "float32")
        distinct = [_draw(number) for number in range(DISTINCT)]
        films = ((f"{OUT}/films/{n:06}.png", distinct[n % DISTINCT]) for n in range(count))
        store.write_many(films)

    def run(self, name: str, *, until: int | None = None) -> list[Sample]:
        """Sample a whole run, or one that is killed once `until` films are done."""
        samples: list[Sample] = []
        with self.start(name) as process:
            started = time.monotonic()
            while process.poll() is None:
                mebibytes, films = resident_mebibytes(process.pid), self.done(name)
                samples.append(Sample(time.monotonic() - started, films, mebibytes))
                if until is not None and films >= until:
                    process.kill()
                time.sleep(SECONDS_BETWEEN)
            _, messages = process.communicate()
        if process.returncode != (0 if until is None else -9):
            raise SystemExit(f"predict ended with {process.returncode}: {messages}")
        return samples

    def start(self, name: str) -> subprocess.Popen[str]:
        inputs = ["--trained", self.trained.uri, "--films", f"{OUT}/films"]
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", "predict", *inputs, "--out", f"{OUT}/{name}"],
            cwd=ROOT,
            env=self.store.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done(self, name: str) -> int:
        """The number of films whose rows are in S3."""
        # Counting row parts lists far fewer objects than counting masks.
        folder = self.folder(name)
        parts = self.store.list_objects(f"{folder}/rows/part-") if folder else ()
        return min(self.count, rows_per_part(self.count) * sum(1 for _ in parts))

    def folder(self, name: str) -> str:
        """The folder of the run's predictions; empty before the run has written an object."""
        prefix = f"{OUT}/{name}/predictions/"
        first = next(self.store.list_objects(prefix), None)
        return prefix + first.uri.removeprefix(prefix).partition("/")[0] if first else ""

    def resume(self, name: str) -> float:
        """Start a killed run again; return the seconds until it writes the first missing mask.

        They include the loading of Python, torch and the network, the listing of the finished
        parts, and the films of the unfinished part, which are masked again.
        """
        masks = f"{self.folder(name)}/masks"
        written = {item.uri for item in self.store.list_objects(masks + "/")}
        first_missing = next(uri for uri in self._masks(masks) if uri not in written)
        with self.start(name) as process:
            started = time.monotonic()
            while not self.store.exists(first_missing):
                if process.poll() is not None or time.monotonic() - started > SECONDS_TO_RESUME:
                    raise SystemExit(f"the job did not resume: {process.communicate()[1]}")
                time.sleep(0.02)
            seconds = time.monotonic() - started
            process.communicate()
        return seconds

    def _masks(self, folder: str) -> Iterator[str]:
        return (f"{folder}/{number:06}.png" for number in range(self.count))


def measure(count: int, folder: Path) -> tuple[dict[str, Any], list[Sample]]:
    """(the figures of `summarise` with "resume_seconds", the samples of the run without a kill)."""
    with embedded_s3(folder / "s3") as settings:
        scale = Scale(Store(settings), count)
        samples = scale.run("whole")
        scale.run("killed", until=round(KILLED_AT * count))
        seconds = scale.resume("killed")
    return {"films": count, **summarise(samples), "resume_seconds": round(seconds, 1)}, samples


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """MiB and films per second in the first and in the second half of the films."""
    running = [sample for sample in samples if sample.films]
    middle = running[-1].films / 2
    first = [sample for sample in running if sample.films <= middle]
    second = [sample for sample in running if sample.films > middle]
    mebibytes = [statistics.median(s.mebibytes for s in half) for half in (first, second)]
    return {
        "mebibytes_by_half": [round(number, 1) for number in mebibytes],
        "growth": round(mebibytes[1] / mebibytes[0] - 1, 4),
        "peak_mebibytes": round(max(s.mebibytes for s in samples), 1),
        "films_per_second_by_half": [round(_rate(half), 1) for half in (first, second)],
        "seconds": round(samples[-1].seconds, 1),
    }


def _rate(samples: Sequence[Sample]) -> float:
    """Films per second up to the last film; the job's end, which masks no film, does not count."""
    last = next(sample for sample in samples if sample.films == samples[-1].films)
    return (last.films - samples[0].films) / max(last.seconds - samples[0].seconds, 1e-9)


def resident_mebibytes(pid: int) -> float:
    """Resident memory of a process in MiB; 0 once the process has ended."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def draw_memory(samples: Sequence[Sample], figures: dict[str, Any], path: Path) -> None:
    """Draw resident MiB over films done as a PNG of 1200 x 540 pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    films, mebibytes = zip(*((s.films, s.mebibytes) for s in samples), strict=True)
    axes.plot(films, mebibytes, color="#1668a7", marker=".", markersize=3, linewidth=1)
    first, second = figures["films_per_second_by_half"]
    title = (
        f"predict, {figures['films']:,} films in one shard: {first:.0f} films/s in the first half, "
        f"{second:.0f} in the second"
    )
    axes.set(xlabel="films done", ylabel="MiB resident", ylim=(0, None), title=title)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Software": None})


def _draw(number: int) -> bytes:
    side = SIDES[number % len(SIDES)]
    film = cv2.GaussianBlur(draw_pair(number, side, side + 8)[0], (0, 0), 1)
    return encode.encode_png(film.astype(np.uint8))


def main(count: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        figures, samples = measure(count, Path(scratch))
    draw_memory(samples, figures, folder / "memory.png")
    content = figures | {"samples": [asdict(sample) for sample in samples]}
    (folder / "memory.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(figures, indent=2), f"{folder / 'memory.png'}", sep="\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=20_000)
    parser.add_argument("--to", type=Path, default=ROOT / "artifacts")
    arguments = parser.parse_args()
    main(arguments.films, arguments.to)
