"""Which GPUs a job's container gets, on a stand-in for an engine with GPUs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.airflow_tasks import events, logged
from tests.support.gpu_engine import FakeContainer, FakeGpu, GpuEngine, node, run, task

pytestmark = pytest.mark.airflow


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from lung import gpu_claim

    monkeypatch.setattr(gpu_claim, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(gpu_claim, "LOOK_SECONDS", 0.05)


def devices(engine: GpuEngine) -> list[list[str]]:
    """The GPUs of each job that was started."""
    return [container.devices for container in engine.started]


def waits(engine: GpuEngine, operator: Any, text: str, then: Callable[[], object]) -> list[str]:
    """Run the task, call `then` once it has logged that it waits for `text`; its log."""
    over = threading.Event()

    def act() -> None:
        while not over.wait(0.01):
            if any(text in line for line in events(entries)):
                assert engine.started == []
                then()
                return

    with logged() as entries:
        actor = threading.Thread(target=act)
        actor.start()
        try:
            run(operator)
        finally:
            over.set()
            actor.join()
    return events(entries)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ("0", []),
        ("any", ["GPU-0"]),
        ("1", ["GPU-0"]),
        ("4", ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]),
        ("all", [f"GPU-{number}" for number in range(8)]),
        (4, ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]),
    ],
)
def test_a_container_has_its_share_of_eight_gpus_by_name(share: Any, expected: list[str]) -> None:
    engine = GpuEngine(node(8))
    run(task(engine, gpus=share))
    assert devices(engine) == [expected]
    (container,) = engine.started
    assert container.labels.get("lung.gpus", "") == ",".join(expected)
    for request in container.host_config.get("DeviceRequests") or []:
        assert (request["Count"], request["Capabilities"]) == (0, [["gpu"]])
    assert engine.left == []


@pytest.mark.parametrize("share", ["any", "all"])
def test_an_engine_without_gpus_runs_the_job_on_its_cpu_and_no_container_asks_for_gpus(
    share: str,
) -> None:
    engine = GpuEngine([], toolkit=False)
    run(task(engine, gpus=share))
    assert devices(engine) == [[]]
    assert engine.probes == 0


@pytest.mark.parametrize(
    "answer",
    [
        (6, "No devices were found"),
        (-1, "load library failed: libnvidia-ml.so.1: cannot open shared object file"),
    ],
)
def test_a_toolkit_without_a_gpu_or_a_driver_means_the_cpu(answer: tuple[int, str]) -> None:
    engine = GpuEngine([])
    engine.answer = answer
    run(task(engine, gpus="all"))
    assert devices(engine) == [[]]


def test_gpus_that_do_not_answer_are_an_error_and_not_a_training_on_the_cpu() -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    engine = GpuEngine([])
    engine.answer = (18, "Failed to initialize NVML: Driver/library version mismatch\n")
    with pytest.raises(AirflowException, match=r"do not answer: .*mismatch.*LUNG_GPUS=0") as raised:
        run(task(engine, gpus="all"))
    assert not isinstance(raised.value, AirflowFailException)
    assert engine.left == engine.started == []


@pytest.mark.parametrize(
    ("gpus", "answer", "offered"),
    [(2, (0, ""), 2), (0, (-1, 'could not select device driver "" with capabilities: [[gpu]]'), 0)],
)
def test_more_gpus_than_there_are_is_one_error_that_is_never_retried(
    gpus: int, answer: tuple[int, str], offered: int
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    engine = GpuEngine(node(gpus), toolkit=gpus > 0)
    engine.answer = answer
    with pytest.raises(AirflowFailException, match=rf"needs 4 GPUs .* offers {offered}: lower "):
        run(task(engine, gpus=4))
    assert engine.left == engine.started == []


def test_two_trainings_of_four_run_side_by_side_and_a_third_waits_for_one_to_end() -> None:
    ends = [threading.Event() for _ in range(3)]
    running: list[FakeContainer] = []

    def job(container: FakeContainer) -> None:
        running.append(container)
        ends[len(running) - 1].wait(20)

    engine = GpuEngine(node(8), job=job)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(run, task(engine, gpus=4), name) for name in ("first", "second")]
        until(lambda: len(running) == 2)
        assert not {*running[0].devices} & {*running[1].devices}
        third = pool.submit(run, task(engine, gpus=4), "third")
        until(lambda: engine.probes == 3)
        time.sleep(0.2)  # twenty looks at the holders
        assert len(running) == 2
        ends[0].set()
        until(lambda: len(running) == 3)
        assert running[2].devices == running[0].devices
        for end in ends:
            end.set()
        for done in [*runs, third]:
            done.result()
    assert engine.conflicts == []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("tasks", [2, 3])
def test_tasks_that_choose_at_the_same_moment_never_get_the_same_gpu(tasks: int) -> None:
    for _ in range(20):
        # All have looked at the GPUs, and found all of them free, before one creates a container.
        barrier = threading.Barrier(tasks)
        choosing = threading.local()

        def meet(barrier: threading.Barrier = barrier, choosing: Any = choosing) -> None:
            if not hasattr(choosing, "met"):
                choosing.met = True
                barrier.wait(20)

        engine = GpuEngine(node(8), on_create=meet, job=lambda container: time.sleep(0.02))
        with ThreadPoolExecutor(tasks) as pool:
            runs = [
                pool.submit(run, task(engine, gpus=4), f"run {number}") for number in range(tasks)
            ]
            for done in runs:
                done.result(20)
        assert engine.conflicts == []
        assert [len(gpus) for gpus in devices(engine)] == [4] * tasks
        assert engine.left == []


def test_all_is_what_is_free_and_at_least_one_gpu() -> None:
    engine = GpuEngine(node(8))
    engine.add(["GPU-0", "GPU-5"], task="inbox", run="daily")
    run(task(engine, gpus="all"))
    assert devices(engine) == [[f"GPU-{number}" for number in (1, 2, 3, 4, 6, 7)]]

    engine = GpuEngine(node(1))
    other = engine.add(["GPU-0"], task="inbox", run="daily")
    waits(
        engine,
        task(engine, gpus="all"),
        "Waiting for 1 of 1 GPUs, 0 free. GPU 0: inbox of the run daily. ",
        lambda: engine.remove_container(other.id),
    )
    assert devices(engine) == [["GPU-0"]]


def test_a_gpu_that_another_program_computes_on_is_not_taken_until_its_memory_is_free() -> None:
    busy = FakeGpu("GPU-0", used_mib="20000")
    idle_and_unknown = [FakeGpu("GPU-1", used_mib="600"), FakeGpu("GPU-2", used_mib="[N/A]")]
    engine = GpuEngine([busy, *idle_and_unknown])
    run(task(engine, gpus=2))
    assert devices(engine) == [["GPU-1", "GPU-2"]]

    engine = GpuEngine([busy, *idle_and_unknown])
    log = waits(
        engine,
        task(engine, gpus=3),
        "Waiting for 3 of 3 GPUs, 2 free. GPU 0: programs other than the jobs of these DAGs. ",
        lambda: setattr(busy, "used_mib", "4"),
    )
    assert devices(engine) == [["GPU-0", "GPU-1", "GPU-2"]]
    assert len([line for line in log if "Waiting" in line]) == 1


def test_a_kill_ends_the_waiting_within_a_moment_and_leaves_nothing() -> None:
    from airflow.sdk.exceptions import AirflowException

    engine = GpuEngine(node(1))
    holder = engine.add(["GPU-0"], task="train", run="weekly")
    operator = task(engine, gpus=1)
    with pytest.raises(AirflowException, match="stopped from outside"):
        waits(engine, operator, "train of the run weekly", operator.on_kill)
    assert engine.left == [holder]
    assert engine.started == []


def test_the_log_tells_a_holder_that_ends_from_one_that_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lung import gpu_claim

    monkeypatch.setattr(gpu_claim, "ENDING_SECONDS", 0.3)
    engine = GpuEngine(node(2))
    holder = engine.add(["GPU-0", "GPU-1"], task="train", run="weekly")
    log = waits(
        engine,
        task(engine, gpus=1),
        "This task goes on waiting, up to its time limit",
        lambda: engine.remove_container(holder.id),
    )
    waiting = "Waiting for 1 of 2 GPUs, 0 free. GPU 0, 1: train of the run weekly. "
    assert [line for line in log if "Waiting" in line] == [
        f"{waiting}A job whose task was killed ends within a minute",
        f"{waiting}This task goes on waiting, up to its time limit",
    ]


def test_a_container_that_was_never_started_loses_its_gpus_with_its_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lung import gpu_claim

    monkeypatch.setattr(gpu_claim, "ENDING_SECONDS", 0.3)
    engine = GpuEngine(node(1))
    engine.add(["GPU-0"], state="created", task="train", run="weekly")
    with logged() as entries:
        run(task(engine, gpus=1))
    assert devices(engine) == [["GPU-0"]]
    removed = "Removed a container of train of the run weekly that was never started"
    assert removed in events(entries)


@pytest.mark.parametrize("state", ["exited", "dead", "removing"])
def test_a_container_that_has_ended_holds_no_gpu(state: str) -> None:
    engine = GpuEngine(node(1))
    engine.add(["GPU-0"], state=state, task="train", run="weekly")
    run(task(engine, gpus=1))
    assert devices(engine) == [["GPU-0"]]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": None}, False),
        ({"Runtimes": {"runc": {}}}, False),
        ({"Runtimes": {"nvidia": {}, "runc": {}}}, True),
        ({"Runtimes": {}, "DiscoveredDevices": [{"ID": "nvidia.com/gpu=0"}]}, True),
        ({"Runtimes": {}, "DiscoveredDevices": [{"ID": "vendor.com/net=0"}]}, False),
    ],
)
def test_the_toolkit_is_known_by_its_runtime_or_its_devices(info: Any, expected: bool) -> None:
    from lung.engine_gpus import has_toolkit

    assert has_toolkit(info) is expected
