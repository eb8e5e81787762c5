"""Where the time went: counted per thread and stage, printed on demand, shown in the report."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.chain import INPUTS
from jobs.runtime import profile
from jobs.runtime.parallel import ordered_map, run_all, submit
from jobs.runtime.profile import Profile, moved, recording, timed
from jobs.storage.s3 import Store
from tests.support.films import run_job, write_montgomery

OPTIONS = {
    "preprocess": ["--size", "32"],
    "train": ["--epochs", "2", "--network", "small", "--batch-size", "4"],
    "publish": ["--run-id", "profiled", "--min-dice", "0"],
}
WORK = {
    "download": {"write"},
    "preprocess": {"read", "write"},
    "train": {"read", "decode", "data", "compute", "validate", "write"},
    "predict": {"read", "decode", "resize", "compute", "restore", "encode", "preview", "write"},
    "evaluate": {"read", "decode", "compute", "write"},
    "publish": {"read", "write"},
    "inbox": {"read", "decode", "resize", "compute", "restore", "encode", "preview", "write"},
}


def spend(seconds: float) -> None:
    limit = time.perf_counter() + seconds
    while time.perf_counter() < limit:
        time.sleep(0.001)


def stages(recorded: Profile) -> dict[str, Any]:
    return recorded.summary()["stages"]


def test_seconds_and_bytes_are_summed_over_threads() -> None:
    together = threading.Barrier(4)

    def work(size: int) -> None:
        together.wait()
        with timed("read"):
            spend(0.05)
        moved("read", size)

    with recording() as recorded, ThreadPoolExecutor(4) as pool:
        futures = [submit(pool, work, size) for size in range(1, 5)]
        assert [future.result() for future in futures] == [None] * 4
    read = stages(recorded)["read"]
    assert (read["times"], read["bytes"]) == (4, 10)
    assert 0.2 <= read["seconds"] <= 4 * recorded.summary()["wall_seconds"] + 0.01
    assert recorded.summary()["threads"] == 4


def test_two_jobs_that_run_side_by_side_in_one_process_have_a_profile_each() -> None:
    together = threading.Barrier(2)

    def job(stage: str) -> Profile:
        def work(size: int) -> None:
            moved(stage, size)

        with recording() as recorded:
            together.wait()
            run_all(work, [1, 2, 3], threads=2)
            together.wait()
        return recorded

    with recording() as outer:
        profiles = list(ordered_map(job, ["read", "write"], threads=2))
    assert [set(stages(profile)) for profile in profiles] == [{"read"}, {"write"}]
    assert [sum(each["bytes"] for each in stages(p).values()) for p in profiles] == [6, 6]
    assert stages(outer) == {}


def test_what_an_inner_stage_counts_is_not_counted_twice() -> None:
    with recording() as recorded:
        with timed("compute"):
            spend(0.02)
            with timed("read"):
                spend(0.2)
        with timed("compute"):
            pass
    read, compute = stages(recorded)["read"], stages(recorded)["compute"]
    assert read["seconds"] >= 0.2
    assert 0.02 <= compute["seconds"] < 0.2
    assert compute["times"] == 2


def test_a_stage_that_fails_is_counted_and_its_error_goes_on() -> None:
    with recording() as recorded, pytest.raises(ValueError, match="film"), timed("decode"):
        raise ValueError("film")
    assert stages(recorded)["decode"]["times"] == 1


def test_the_main_threads_waiting_is_kept_apart_from_the_work() -> None:
    def work(number: int) -> int:
        with timed("decode"):
            spend(0.1)
        return number

    with recording() as recorded:
        assert list(ordered_map(work, range(4), threads=2)) == [0, 1, 2, 3]
    summary = recorded.summary()
    assert summary["stages"].keys() == {"decode"}
    assert 0.15 <= summary["waited_seconds"] <= summary["wall_seconds"] < 0.4
    assert summary["stages"]["decode"]["seconds"] >= 0.4


def test_a_stage_costs_microseconds() -> None:
    started = time.thread_time()
    with recording():
        for _ in range(10_000):
            with timed("decode"):
                pass
    assert (time.thread_time() - started) / 10_000 < 50e-6


def test_outside_a_recording_there_is_no_summary() -> None:
    with timed("read"):
        pass
    assert profile.summary() == {}
    with recording():
        assert profile.summary()["stages"] == {}
    assert profile.summary() == {}


@pytest.fixture(scope="module")
def results(
    s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[dict[str, Any], str]]]:
    """(result, stderr) of each job of a chain run with --profile."""
    films = tmp_path_factory.mktemp("films")
    write_montgomery(films, 16)
    out = "s3://lung/profiled"
    results: dict[str, tuple[dict[str, Any], str]] = {}
    for job in (*INPUTS, "inbox"):
        inputs = INPUTS.get(job, {})
        flags: list[str] = []
        for name, upstream in inputs.items():
            flags += [f"--{name}", results[upstream][0]["manifest"]]
        source = {"download": ["--source", films.as_uri()]}.get(job, [])
        source += ["--inbox", inbox_of(results)] if job == "inbox" else []
        command = [job, *source, *flags, *OPTIONS.get(job, []), "--out", out, "--profile"]
        results[job] = run_job(*command, environment=s3, printed=True)
    yield results


def inbox_of(results: dict[str, tuple[dict[str, Any], str]]) -> str:
    """The films of the raw manifest, as if they had just arrived."""
    return results["download"][0]["manifest"].replace("manifest.json", "films")


@pytest.mark.slow
@pytest.mark.parametrize("job", WORK)
def test_every_job_prints_where_its_time_went_and_keeps_it_in_its_result(
    job: str, results: dict[str, tuple[dict[str, Any], str]]
) -> None:
    result, printed = results[job]
    summary = result["profile"]
    assert summary["stages"].keys() >= WORK[job]
    total = sum(stage["seconds"] for stage in summary["stages"].values())
    assert 0 < total <= summary["threads"] * summary["wall_seconds"] + 0.01
    assert 0 <= summary["waited_seconds"] <= summary["wall_seconds"] <= result["seconds"] + 0.01
    assert summary["stages"]["write"]["bytes"] > 0
    table = printed[printed.index(f"{job}: where ") :].splitlines()[2:]
    lines = {words[3]: words[4:] for words in map(str.split, table) if len(words) >= 8}
    assert lines.keys() == summary["stages"].keys()
    for name, stage in summary["stages"].items():
        assert lines[name][0] == f"{stage['seconds']:.2f}"
        assert lines[name][1] == f"{stage['seconds'] / total:.0%}"


@pytest.mark.slow
def test_the_profile_is_in_the_manifest_and_in_no_hash(
    store: Store, s3: dict[str, str], results: dict[str, tuple[dict[str, Any], str]]
) -> None:
    result, _ = results["predict"]
    header = store.read_json(result["manifest"])
    assert header["created_by"]["profile"]["stages"].keys() >= WORK["predict"]
    assert "profile" not in header["config"]
    inputs = ["--trained", results["train"][0]["manifest"]]
    inputs += ["--films", results["download"][0]["manifest"], "--out", "s3://lung/profiled"]
    assert run_job("predict", *inputs, environment=s3)["reused"], "the flag changes no fingerprint"
    again = run_job("predict", *inputs, "--force", "--run-id", "other", environment=s3)
    assert again["content_hash"] == result["content_hash"]


@pytest.mark.slow
def test_the_report_shows_where_the_time_of_each_job_went(
    store: Store, results: dict[str, tuple[dict[str, Any], str]]
) -> None:
    run = store.read_json(results["publish"][0]["manifest"])
    page = store.read(results["publish"][0]["manifest"].replace("run.json", "report.html")).decode()
    page = page[page.index("Where the time went") :]
    for job in run["details"]["jobs"]:
        part = page[page.index(f"{job['job']}: ") :].partition("</tbody>")[0]
        for name, stage in job["profile"]["stages"].items():
            assert f'<th scope="row">{name}</th><td>{stage["seconds"]:.1f}</td>' in part


@pytest.mark.slow
def test_the_whole_chain_prints_a_table_a_job(tmp_path: Path) -> None:
    films = tmp_path / "films"
    write_montgomery(films, 16)
    arguments = ["run", "--folder", str(tmp_path / "artifacts"), "--source", films.as_uri()]
    settings = ["--size", "32", "--epochs", "1", "--profile"]
    process = run_job(*arguments, *settings, environment={}, check=False)
    assert process.returncode == 0, process.stderr
    for job in INPUTS:
        assert f"{job}: where " in process.stderr
