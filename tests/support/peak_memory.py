"""A table of the most memory that each job takes of one hostile film or object below 4 MB.

usage: python -m tests.support.peak_memory [JOB ...]

    job        the whole job, as its own process, on 24 small films, or Airflow's tab; only those
               named, if any
    hostile    what one film, its two masks with it, or one object was replaced by
    usual      MiB, the peak of resident memory of the same job with honest films
    MiB, over  the peak with the hostile one, and less the usual one
    the job    how it ended: its exit code with its error, or what became of the film
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.segmentation.history import EpochRow
from jobs.storage.local_server import embedded_s3
from jobs.storage.s3 import Store
from tests.support.airflow_tasks import connection_of
from tests.support.films import ROOT, write_montgomery
from tests.support.hostile_films import FILMS, LARGEST, write_with_hostile
from tests.support.hostile_objects import OBJECTS, TAB_FILES, Hostile

COUNT = 24
# The safety of the machine: address space, which is several times the memory in use, and seconds.
MOST_ADDRESSES, LONGEST = 32 * 2**30, 150
WORDS = 14
# The time and level before each message.
LOG_PREFIX = re.compile(r"^[\d-]+ [\d:,]+ [A-Z]+ ")


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
        timer = threading.Timer(LONGEST, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
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
    films: Path

    def __post_init__(self) -> None:
        self.manifests: dict[str, str] = {}

    def arguments(self, job: str) -> list[str]:
        uri = self.manifests.get
        inputs: dict[str, list[str | None]] = {
            "download": ["--source", self.films.as_uri()],
            "preprocess": ["--raw", uri("download"), "--size=128", "--max-quarantined=0.9"],
            "train": ["--processed", uri("preprocess"), "--epochs=1", "--network=small"],
            "predict": ["--trained", uri("train"), "--films", uri("download")],
            "evaluate": ["--predictions", uri("predict"), "--processed", uri("preprocess")],
            "publish": [
                *("--raw", uri("download"), "--processed", uri("preprocess")),
                *("--trained", uri("train"), "--predictions", uri("predict")),
                *("--evaluation", uri("evaluate"), "--min-dice=0", "--starter=false"),
            ],
            "inbox": ["--inbox", f"{str(uri('download')).rpartition('/')[0]}/films/"],
        }
        return [job, "--out", self.out, *map(str, inputs[job])]

    def run(self, job: str) -> Peak:
        peak = run_job(self.store, *self.arguments(job))
        self.manifests[job] = peak.result.get("manifest", "")
        return peak


# The page of Airflow, which is no job, and what is read by it.
TAB = "tab"
JOBS = ("download", "preprocess", "train", "predict", "evaluate", "publish", "inbox")


@dataclass(frozen=True)
class Row:
    """A line of the table; `usual` in MiB."""

    job: str
    hostile: str
    usual: int
    peak: Peak

    def __str__(self) -> str:
        peak = self.peak
        over = peak.mib - self.usual
        start = f"{self.job:10} {self.hostile:46} {self.usual:>5} {peak.mib:>5} {over:>5}"
        return f"{start}  {peak.code} {_outcome(peak)}".rstrip()


def _outcome(peak: Peak) -> str:
    """The start of the error; of a job that ended well, its headline."""
    if not peak.code:
        return json.dumps(peak.result["headline"])
    if peak.code == -signal.SIGKILL:
        return f"not done after {LONGEST} s, and killed"
    return " ".join(LOG_PREFIX.sub("", peak.error).split()[:WORDS])


def measure(store: Store, folder: Path, jobs: Collection[str] = JOBS) -> Iterator[Row]:
    """The peaks of the jobs named: with honest films, then with each hostile film or object."""
    write_montgomery(folder / "honest", COUNT)
    honest = Chain(store, f"s3://lung/{uuid.uuid4().hex}", folder / "honest")
    usual = {}
    for job in JOBS:
        usual[job] = honest.run(job)
        assert usual[job].code == 0, usual[job].error
        if job in jobs:
            yield Row(job, "none", usual[job].mib, usual[job])
    for name, film in FILMS.items():
        write_with_hostile(folder / name, COUNT, film())
        chain = Chain(store, f"s3://lung/{uuid.uuid4().hex}", folder / name)
        for job in JOBS[: 1 + max(map(JOBS.index, jobs))]:
            peak = chain.run(job)
            if job in jobs:
                yield Row(job, name, usual[job].mib, peak)
    for case in OBJECTS:
        if case.job in jobs:
            yield Row(case.job, case.name, usual[case.job].mib, with_object(honest, case))


def with_object(honest: Chain, case: Hostile) -> Peak:
    """The job on the honest run's manifests with one object replaced, which is put back."""
    store = honest.store
    before = {item.uri: item for item in store.list_objects(f"{honest.out}/")}
    kept = {uri: store.read(uri) for uri, item in before.items() if item.bytes < LARGEST}
    more = case.replace(store, honest.manifests)
    if case.job != "train" or "last.pt" not in case.name:
        # The same work is done already.
        more = [*more, "--run-id=hostile", "--force"]
    peak = run_job(store, *honest.arguments(case.job), *more)
    store.delete(
        item.uri for item in store.list_objects(f"{honest.out}/") if item.uri not in before
    )
    for uri, data in kept.items():
        store.write(uri, data)
    return peak


def measure_tab(store: Store) -> Iterator[Row]:
    """The peaks of Airflow's tab and of a task that reads its result."""
    row = dict.fromkeys(EpochRow.__annotations__, 0.5) | {"epoch": 1}
    history = {"epochs": [row]}
    usual, _ = _tab(store, json.dumps(history).encode(), b"{}")
    for name, data in TAB_FILES.items():
        mib, error = _tab(store, data(), data())
        yield Row("tab", name, usual, Peak(mib, 1, {}, error))


def _tab(store: Store, history: bytes, result: bytes) -> tuple[int, str]:
    """(the peak in MiB, the errors) of a tab and a task that read these."""
    folder = "s3://lung/tab"
    store.write(f"{folder}/history.json", history)
    store.write(f"{folder}/curves.svg", history)
    store.write(f"{folder}/result.json", result)
    python, module = ROOT / ".venv-airflow/bin/python", "tests.support.tab_memory"
    process = subprocess.run(
        [python, "-m", module, folder, f"{folder}/result.json"],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": f"{ROOT / 'dags'}:{ROOT}", "AIRFLOW_HOME": tempfile.gettempdir()}
        | {"AIRFLOW_CONN_LUNG_S3": connection_of(store.environment())},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    mib, _, error = process.stdout.splitlines()[-1].partition(" ")
    return int(mib), error


def main(jobs: Collection[str]) -> None:
    if unknown := set(jobs) - {*JOBS, TAB}:
        raise SystemExit(f"{', '.join(sorted(unknown))}: give names of {', '.join(JOBS)} or {TAB}")
    print(f"{'job':10} {'hostile':46} {'usual':>5} {'MiB':>5} {'over':>5}  the job")
    with tempfile.TemporaryDirectory() as folder, embedded_s3(Path(folder) / "s3") as settings:
        store = Store(settings)
        store.ensure_bucket("s3://lung")
        wanted = set(jobs) or {*JOBS, TAB}
        tab = measure_tab(store) if TAB in wanted else iter(())
        chains = measure(store, Path(folder), wanted - {TAB}) if wanted - {TAB} else iter(())
        for row in itertools.chain(tab, chains):
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
