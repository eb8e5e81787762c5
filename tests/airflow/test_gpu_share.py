"""Each task's share of the deployment's GPUs, its pool and slots, and GPUs on the form."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import pytest

from tests.support import device_requests
from tests.support.parsed_dags import parsed, rendered

pytestmark = [
    pytest.mark.airflow,
    # Raised by Airflow's reader of .airflowignore.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]

CPU_JOBS = ("download", "preprocess", "evaluate")
NETWORK_JOBS = ("predict", "publish", "inbox")


def tasks(share: str, backend: str = "docker") -> dict[str, tuple[Any, Any]]:
    """{job: (its DAG, its task)} of both DAGs, with LUNG_GPUS."""
    with patch.dict(os.environ, {"LUNG_GPUS": share, "LUNG_BACKEND": backend}):
        dags = parsed()
    return {task.task_id: (dag, task) for dag in dags.values() for task in dag.tasks}


def shares(share: str, backend: str = "docker", **params: Any) -> dict[str, str]:
    """{job: the share of its task} with these values on the form."""
    return {
        job: str(rendered(dag, job, **(params if "gpus" in dag.params else {})).gpus)
        for job, (dag, _) in tasks(share, backend).items()
        if job != "shards"
    }


def all_of(train: str, network: str) -> dict[str, str]:
    return {
        "train": train,
        **dict.fromkeys(NETWORK_JOBS, network),
        **dict.fromkeys(CPU_JOBS, "0"),
    }


@pytest.mark.parametrize("backend", ["docker", "process"])
@pytest.mark.parametrize(
    ("setting", "expected"),
    [("", all_of("all", "any")), ("4", all_of("4", "1")), ("0", all_of("0", "0"))],
)
def test_train_takes_all_gpus_and_each_other_task_that_runs_the_network_takes_one(
    setting: str, expected: dict[str, str], backend: str
) -> None:
    assert shares(setting, backend) == expected


@pytest.mark.parametrize(("on_form", "train"), [(None, "4"), (2, "2"), (4, "4")])
def test_the_form_lowers_the_share_of_train(on_form: int | None, train: str) -> None:
    assert shares("4", gpus=on_form) == all_of(train, "1")


@pytest.mark.parametrize(("setting", "inbox"), [("4", "1"), ("all", "any")])
def test_0_on_the_form_takes_the_gpus_of_every_task_of_the_run(setting: str, inbox: str) -> None:
    assert shares(setting, gpus=0) == all_of("0", "0") | {"inbox": inbox}


@pytest.mark.parametrize(
    ("setting", "refused", "accepted"), [("4", 5, 4), ("0", 1, 0), ("all", 65, 8)]
)
def test_the_form_gives_no_more_gpus_than_the_deployment_has(
    setting: str, refused: int, accepted: int
) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    dag, _ = tasks(setting)["train"]
    param = dag.params.get_param("gpus")
    assert param.__copy__().resolve() is None
    assert param.__copy__().resolve(accepted) == accepted
    with pytest.raises(ParamValidationError):
        param.__copy__().resolve(refused)


@pytest.mark.parametrize(
    ("setting", "train", "network"),
    [
        ("8", ("gpu", 8), ("gpu", 1)),
        ("1", ("gpu", 1), ("gpu", 1)),
        # One slot for trainings; shards run side by side.
        ("0", ("gpu", 1), ("default_pool", 1)),
        ("all", ("gpu", 1), ("default_pool", 1)),
    ],
)
def test_a_task_takes_a_slot_of_the_pool_for_each_gpu(
    setting: str, train: tuple[str, int], network: tuple[str, int]
) -> None:
    slots = {job: (task.pool, task.pool_slots) for job, (_, task) in tasks(setting).items()}
    assert slots == {
        "train": train,
        **dict.fromkeys(NETWORK_JOBS, network),
        **dict.fromkeys((*CPU_JOBS, "shards"), ("default_pool", 1)),
    }


@pytest.mark.parametrize("setting", ["four", "-1", "1.5", "All"])
def test_a_setting_that_is_no_number_of_gpus_is_refused_with_the_accepted_form(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lung.gpu_share import deployment_gpus

    monkeypatch.setenv("LUNG_GPUS", setting)
    with pytest.raises(ValueError, match=rf"LUNG_GPUS is '{setting}': it can be all or a number"):
        deployment_gpus()


def test_the_device_requests_of_every_task_on_a_machine_of_8_gpus_under_one_run() -> None:
    table = device_requests.one_run("4")
    shard_gpus = [table.pop(("one run", f"predict {number}/4")) for number in range(1, 5)]
    assert sorted(shard_gpus) == [[0], [1], [2], [3]]
    assert table == {
        ("one run", "download"): [],
        ("one run", "preprocess"): [],
        ("one run", "train"): [0, 1, 2, 3],
        ("one run", "evaluate"): [],
        ("one run", "publish"): [0],
        ("one run", "inbox"): [0],
    }


def test_under_two_runs_every_gpu_is_in_one_container_at_a_time() -> None:
    table = device_requests.two_runs("4")
    trainings = sorted([table["run A", "train"], table["run B", "train"]])
    assert trainings == [[0, 1, 2, 3], [4, 5, 6, 7]]
    shard_gpus = [gpus for (_, task), gpus in table.items() if task.startswith("predict")]
    assert sorted(shard_gpus) == [[number] for number in range(8)]
    for job in ("publish", "inbox"):
        assert sorted([table["run A", job], table["run B", job]]) == [[0], [1]]
    for job in CPU_JOBS:
        assert table["run A", job] == table["run B", job] == []


def test_under_all_a_training_takes_every_gpu() -> None:
    table = device_requests.one_run("all")
    assert table["one run", "train"] == list(range(8))
    assert table["one run", "publish"] == [0]
