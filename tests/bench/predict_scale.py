"""The job predict over many small films: its memory, its pace, and how soon it goes on when killed.

usage: python -m tests.bench.predict_scale [--films 20000] [--to artifacts]

The films are put into an S3 server of its own; the job runs as a process, as Airflow starts it.
It leaves memory.json and memory.png, MiB of the job against films done.
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

from jobs.imaging import decode
from jobs.storage.local_server import BUCKET, embedded_s3
from jobs.storage.s3 import Store
from jobs.storage.work_folder import rows_per_part
from tests.bench.dark_lung import write_trained
from tests.bench.launch import ROOT
from tests.support.films import draw_pair

ROOM = f"s3://{BUCKET}/scale"
NETWORK, SIZE = "small", 64
DRAWN, SIDES = 24, (64, 80, 96)  # different films; the others are these again
SECONDS_BETWEEN, SECONDS_TO_RESUME = 0.5, 600
KILLED_AT = 0.5  # of the films


@dataclass(frozen=True)
class Sample:
    """Of the running job: seconds since its start, films whose rows are safe, resident MiB."""

    seconds: float
    films: int
    mebibytes: float


class Scale:
    """`count` films in S3 and the job on all of them, in one shard."""

    def __init__(self, store: Store, count: int) -> None:
        self.store = store
        self.count = count
        self.trained = write_trained(store, ROOM, NETWORK, SIZE, "float32")
        drawn = [_draw(number) for number in range(DRAWN)]
        films = ((f"{ROOM}/films/{n:06}.png", drawn[n % DRAWN]) for n in range(count))
        store.write_many(films)

    def run(self, name: str, *, until: int | None = None) -> list[Sample]:
        """The samples of a whole run, or of one that is killed once `until` films are done."""
        samples: list[Sample] = []
        with self.start(name) as process:
            started = time.monotonic()
            while process.poll() is None:
                mebibytes, films = resident_mebibytes(process.pid), self.done(name)
                samples.append(Sample(time.monotonic() - started, films, mebibytes))
                if until is not None and films >= until:
                    process.kill()
                time.sleep(SECONDS_BETWEEN)
            _, said = process.communicate()
        if process.returncode != (0 if until is None else -9):
            raise SystemExit(f"predict ended with {process.returncode}: {said}")
        return samples

    def start(self, name: str) -> subprocess.Popen[str]:
        inputs = ["--trained", self.trained.uri, "--films", f"{ROOM}/films"]
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", "predict", *inputs, "--out", f"{ROOM}/{name}"],
            cwd=ROOT,
            env=self.store.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done(self, name: str) -> int:
        """How many films' rows are in S3."""
        # Rows lie behind the masks in the listing, so that these are not listed each time.
        folder = self.folder(name)
        parts = self.store.list_objects(f"{folder}/rows/part-") if folder else ()
        return min(self.count, rows_per_part(self.count) * sum(1 for _ in parts))

    def folder(self, name: str) -> str:
        """Where the run writes; empty before it does."""
        start = f"{ROOM}/{name}/predictions/"
        first = next(self.store.list_objects(start), None)
        return start + first.uri.removeprefix(start).partition("/")[0] if first else ""

    def resume(self, name: str) -> float:
        """Start a killed run again: seconds until the first film that it had not masked has a mask.

        Python, torch and the network are loaded, what is done is listed, and the films of the part
        that was under way are done again.
        """
        masks = f"{self.folder(name)}/masks"
        there = {item.uri for item in self.store.list_objects(masks + "/")}
        wanted = next(uri for uri in self._masks(masks) if uri not in there)
        with self.start(name) as process:
            started = time.monotonic()
            while not self.store.exists(wanted):
                if process.poll() is not None or time.monotonic() - started > SECONDS_TO_RESUME:
                    raise SystemExit(f"the job did not go on: {process.communicate()[1]}")
                time.sleep(0.02)
            seconds = time.monotonic() - started
            process.communicate()
        return seconds

    def _masks(self, folder: str) -> Iterator[str]:
        return (f"{folder}/{number:06}.png" for number in range(self.count))


def measure(count: int, folder: Path) -> tuple[dict[str, Any], list[Sample]]:
    """The figures of `summarise` and "resume_seconds", and the samples of the unbroken run."""
    with embedded_s3(folder / "s3") as settings:
        scale = Scale(Store(settings), count)
        samples = scale.run("whole")
        scale.run("killed", until=round(KILLED_AT * count))
        resumed = scale.resume("killed")
    return {"films": count, **summarise(samples), "resume_seconds": round(resumed, 1)}, samples


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """MiB and films a second of the first and of the second half of the films."""
    busy = [sample for sample in samples if sample.films]
    middle = busy[-1].films / 2
    first = [sample for sample in busy if sample.films <= middle]
    second = [sample for sample in busy if sample.films > middle]
    mebibytes = [statistics.median(s.mebibytes for s in half) for half in (first, second)]
    return {
        "mebibytes_by_half": [round(number, 1) for number in mebibytes],
        "growth": round(mebibytes[1] / mebibytes[0] - 1, 4),
        "peak_mebibytes": round(max(s.mebibytes for s in samples), 1),
        "films_per_second_by_half": [round(_pace(half), 1) for half in (first, second)],
        "seconds": round(samples[-1].seconds, 1),
    }


def _pace(samples: Sequence[Sample]) -> float:
    last = next(sample for sample in samples if sample.films == samples[-1].films)
    return (last.films - samples[0].films) / max(last.seconds - samples[0].seconds, 1e-9)


def resident_mebibytes(pid: int) -> float:
    """Memory of a process that is in RAM; 0 once it has ended."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def draw_memory(samples: Sequence[Sample], told: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    films, mebibytes = zip(*((s.films, s.mebibytes) for s in samples), strict=True)
    axes.plot(films, mebibytes, color="#1668a7", marker=".", markersize=3, linewidth=1)
    first, second = told["films_per_second_by_half"]
    title = (
        f"predict, {told['films']:,} films in one shard: {first:.0f} films/s in the first half, "
        f"{second:.0f} in the second"
    )
    axes.set(xlabel="films done", ylabel="MiB resident", ylim=(0, None), title=title)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Software": None})


def _draw(number: int) -> bytes:
    side = SIDES[number % len(SIDES)]
    film = cv2.GaussianBlur(draw_pair(number, side, side + 8)[0], (0, 0), 1)
    return decode.encode_png(film.astype(np.uint8))


def main(count: int, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        told, samples = measure(count, Path(scratch))
    draw_memory(samples, told, to / "memory.png")
    everything = told | {"samples": [asdict(sample) for sample in samples]}
    (to / "memory.json").write_text(json.dumps(everything, indent=1) + "\n")
    print(json.dumps(told, indent=2), f"{to / 'memory.png'}", sep="\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=20_000)
    parser.add_argument("--to", type=Path, default=ROOT / "artifacts")
    arguments = parser.parse_args()
    main(arguments.films, arguments.to)
