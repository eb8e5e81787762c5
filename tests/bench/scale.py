"""Measure the jobs by the number of films: `python -m tests.bench.scale 100 1000`.

The films are small and synthetic, each job is a process, and all share one S3 server. Prints a
table and writes artifacts/bench-scale.json.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs.storage.local_server import embedded_s3
from tests.bench.chain import run_measured
from tests.bench.launch import ROOT
from tests.bench.runs import write_json
from tests.support.films import write_montgomery

COUNTS = (100, 1000, 10_000)
TRAINED_ON = 100


def main(counts: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        rows = list(measure(Path(folder), counts))
    (ROOT / "artifacts").mkdir(exist_ok=True)
    write_json(ROOT / "artifacts" / "bench-scale.json", {"rows": rows})


def measure(folder: Path, counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield and print a row per job and number of films; predict always has the same network."""
    with embedded_s3(folder / "s3") as settings:

        def run(job: str, count: int, **inputs: str) -> tuple[str, dict[str, Any]]:
            cost = run_measured(job, inputs, settings.environment())
            milliseconds = 1000 * cost.seconds / count
            print(
                f"{job:11}{count:>8} films{cost.seconds:>9.1f} s{milliseconds:>8.1f} ms a film"
                f"{cost.peak:>7.0f} MiB",
                flush=True,
            )
            row = {"job": job, "films": count, "seconds": cost.seconds, "peak_mib": cost.peak}
            return cost.manifest, row

        trained = ""
        for films in (TRAINED_ON, *counts):
            source = folder / f"{films}-{bool(trained)}"
            # Each count draws films of another seed, so that no job reuses another count's work.
            write_montgomery(source, films, seed=films + bool(trained))
            raw, row = run("download", films, source=source.as_uri())
            yield row
            processed, row = run("preprocess", films, raw=raw)
            yield row
            if not trained:
                trained, _ = run("train", films, processed=processed)
            else:
                _, row = run("predict", films, trained=trained, films=raw)
                yield row


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or COUNTS)
