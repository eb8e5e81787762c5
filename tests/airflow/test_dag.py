"""Both DAGs as Airflow parses them: commands, form, policy and documentation, on each backend."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from jobs.chain import INPUTS
from jobs.cli import build_parser
from jobs.settings.airflow_form import form_schema
from jobs.settings.config import JOBS, build_config
from tests.support.airflow_tasks import ROOT
from tests.support.parsed_dags import manifest_uri, rendered

pytestmark = [
    pytest.mark.airflow,
    # Raised by Airflow's reader of .airflowignore.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]

SECRET = "S3cretNobodyMaySee"
DAGS = ("lung_masks", "lung_segmentation")


@pytest.fixture(scope="module", params=["docker", "process"])
def bag(request: pytest.FixtureRequest) -> Any:
    """The DAG folder as Airflow's parser reads it, on each backend."""
    from airflow.dag_processing.dagbag import DagBag

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNG_BACKEND", request.param)
        patch.setenv("AIRFLOW_CONN_LUNG_S3", f"aws://key:{SECRET}@")
        yield DagBag(ROOT / "dags")


@pytest.fixture
def dag(bag: Any) -> Any:
    return bag.dags["lung_segmentation"]


@pytest.fixture
def masks(bag: Any) -> Any:
    return bag.dags["lung_masks"]


@pytest.fixture(params=DAGS)
def any_dag(bag: Any, request: pytest.FixtureRequest) -> Any:
    return bag.dags[request.param]


def config_of(command: list[str]) -> Any:
    """The job's config from its command line; SystemExit where the jobs refuse it."""
    assert command[:3] == ["python", "-m", "jobs"]
    return build_config(command[3], vars(build_parser().parse_args(command[3:])))


def jobs_of(dag: Any) -> list[str]:
    return [task.task_id for task in dag.tasks if task.task_id in JOBS]


def test_the_folder_holds_these_dags_and_no_errors(bag: Any) -> None:
    assert bag.import_errors == {}
    assert sorted(bag.dags) == sorted(DAGS)


def test_a_cold_process_parses_the_folder_and_loads_neither_the_jobs_nor_their_packages() -> None:
    # boto3 is installed with Airflow, but takes half a second, which every parse would pay.
    code = (
        "import sys; from airflow.dag_processing.dagbag import DagBag; bag = DagBag('.');"
        "print(sorted(bag.dags), bag.import_errors,"
        "[n for n in ('jobs', 'torch', 'numpy', 'boto3') if n in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "dags"), "LUNG_BACKEND": "docker"}
    # Airflow itself uses what is deprecated, as above.
    options = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    process = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT / "dags",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    last_line = process.stdout.splitlines()[-1:]
    assert process.returncode == 0, process.stdout + process.stderr
    assert last_line == [f"{sorted(DAGS)} {{}} []"], process.stdout


@pytest.mark.parametrize("module", [*DAGS, "lung.container_operator", "lung.process_operator"])
def test_each_module_imports_without_a_warning(module: str) -> None:
    command = [sys.executable, "-W", "error", "-c", f"import {module}"]
    process = subprocess.run(
        command, cwd=ROOT / "dags", capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


def test_the_jobs_run_in_the_order_of_the_chain(dag: Any) -> None:
    for before, after in pairwise(INPUTS):
        assert after in dag.get_task(before).downstream_task_ids
    # One first task alone refuses a param that is not on the form: one error, one notice.
    assert {task.task_id for task in dag.roots} == {"download"}
    assert {task.task_id for task in dag.leaves} == {"publish"}
    assert set(dag.task_ids) == {*INPUTS, "shards"}


@pytest.mark.parametrize("job", INPUTS)
def test_each_job_reads_the_manifests_that_the_chain_names_and_waits_for_their_jobs(
    dag: Any, job: str
) -> None:
    config = config_of(rendered(dag, job).command)
    manifests = {name: uri for name, uri in vars(config).items() if "manifest.json" in str(uri)}
    assert manifests == {name: manifest_uri(upstream) for name, upstream in INPUTS[job].items()}
    assert dag.get_task(job).get_flat_relative_ids(upstream=True) >= set(INPUTS[job].values())


def test_every_command_line_is_one_that_the_jobs_accept(any_dag: Any) -> None:
    jobs = jobs_of(any_dag)
    assert jobs
    for job in jobs:
        command = rendered(any_dag, job).command
        assert command[3] == job
        config = config_of(command)
        assert config.out == "s3://lung/pipeline"
        assert config.run_id == "manual__2026-11-23T00-00-00-00-00"


def test_values_entered_on_the_form_reach_the_jobs(dag: Any, masks: Any) -> None:
    train = rendered(dag, "train", epochs=3, learning_rate=1e-4, precision="float32").command
    config = config_of(train)
    assert (config.epochs, config.learning_rate, config.precision) == (3, 1e-4, "float32")
    split = rendered(dag, "preprocess", split_file=None).command
    assert config_of(split).split_file == ""
    config = config_of(rendered(masks, "inbox", inbox="s3://b/new", name="mine").command)
    assert (config.inbox, config.name) == ("s3://b/new", "mine")


def test_the_containers_have_the_limits_of_the_form(any_dag: Any) -> None:
    for job in jobs_of(any_dag):
        task = rendered(any_dag, job, memory="20g", shm_size="4g")
        if task.task_type == "ContainerOperator":
            assert (task.mem_limit, task.shm_size) == ("20g", "4g")


def test_each_shard_of_predict_is_a_different_part_of_the_films(dag: Any) -> None:
    task = rendered(dag, "predict")
    assert task.command[task.command.index("--shard") + 1] == "2/3"
    assert dag.get_task("shards").python_callable("3") == ["1/3", "2/3", "3/3"]


def test_the_uri_of_a_result_names_the_run_the_task_the_shard_and_the_try(dag: Any) -> None:
    assert rendered(dag, "train").environment["RESULT_URI"] == (
        "s3://lung/pipeline/runs/manual__2026-11-23T00-00-00-00-00/results/task--1-2.json"
    )


def test_the_form_has_the_jobs_options_and_those_of_the_tasks(any_dag: Any) -> None:
    options: dict[str, Any] = {}
    for job in jobs_of(any_dag):
        options |= form_schema()[job]
    others = {"memory", "shm_size"}
    if any_dag.dag_id == "lung_segmentation":
        others |= {"gpus", "shards"}
    assert any_dag.params.keys() == options.keys() | others
    for name, schema in options.items():
        param = any_dag.params.get_param(name)
        field = {"default": param.value, "description": param.description, **param.schema}
        assert field == schema
    for name in any_dag.params:
        param = any_dag.params.get_param(name)
        assert param.schema["title"] and param.description


def test_the_form_shows_the_fields_that_people_change_first(dag: Any, masks: Any) -> None:
    def main_fields(dag: Any) -> list[str]:
        sections = {name: dag.params.get_param(name).schema.get("section") for name in dag.params}
        assert list(sections.values()) == sorted(sections.values(), key=bool)
        assert set(sections.values()) == {None, "Advanced"}
        return [name for name, section in sections.items() if section is None]

    assert main_fields(dag) == [
        "source",
        "size",
        "epochs",
        "batch_size",
        "network",
        "min_dice",
        "gpus",
    ]
    assert main_fields(masks) == ["inbox", "name"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 500),
        ("size", "512"),
        ("epochs", 0),
        ("min_dice", 1.5),
        ("gpus", 65),
        ("source", "my films"),
        ("memory", "8 GB"),
        ("shm_size", "0g"),
        ("memory", None),
    ],
)
def test_a_value_out_of_bounds_is_refused_before_anything_runs(
    dag: Any, name: str, value: Any
) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        dag.params.get_param(name).__copy__().resolve(value)


def test_all_tasks_have_the_same_policy_of_retries_and_time_limits(any_dag: Any) -> None:
    from lung.notices import record_error, report_failure

    assert (any_dag.catchup, any_dag.max_active_runs) == (False, 1)
    assert {"lung", "segmentation"} < any_dag.tags
    for task in any_dag.tasks:
        assert task.owner == "lung"
        assert task.retries == 2
        assert task.retry_delay == timedelta(minutes=1)
        assert task.retry_exponential_backoff == 2
        assert task.max_retry_delay == timedelta(minutes=20)
        assert timedelta() < task.execution_timeout <= timedelta(days=2)
        assert list(task.on_failure_callback) == [record_error, report_failure]
        assert list(task.on_retry_callback) == [record_error]


def test_train_and_publish_have_outlets_and_the_champion_starts_the_masks(
    dag: Any, masks: Any
) -> None:
    outlets = {
        task.task_id: [asset.name for asset in task.outlets] for task in dag.tasks if task.outlets
    }
    assert outlets == {"train": ["lung_training"], "publish": ["lung_champion_moved"]}
    assert [asset.name for asset in masks.schedule.asset_condition.objects] == ["lung_champion"]


def test_the_documentation_says_for_every_task_what_to_do_when_it_fails(any_dag: Any) -> None:
    rows = [line.split("|") for line in any_dag.doc_md.splitlines() if line.startswith("|")]
    remedies = {row[1].strip(): row[3].strip() for row in rows}
    for task in any_dag.task_ids:
        assert len(remedies[task]) > 40
    titles = {any_dag.params.get_param(name).schema["title"] for name in any_dag.params}
    bold = set(any_dag.doc_md.split("**")[1::2])
    assert bold and bold <= titles


def test_the_documentation_has_the_notices_words_for_a_lost_task(any_dag: Any) -> None:
    from lung.notices import LOST

    assert LOST in " ".join(any_dag.doc_md.split())


def test_the_documentation_says_what_is_to_be_created_once(dag: Any) -> None:
    from lung.contract import KAGGLE_CONNECTION, S3_CONNECTION
    from lung.notices import WEBHOOK_CONNECTION

    _, _, section = dag.doc_md.partition("#### To be created once")
    for name in ("gpu", S3_CONNECTION, KAGGLE_CONNECTION, WEBHOOK_CONNECTION):
        assert f"`{name}`" in section


def test_airflow_shows_no_secret_in_a_dag_or_in_a_rendered_task(any_dag: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    assert SECRET not in str(DagSerialization.to_dict(any_dag))
    for job in jobs_of(any_dag):
        task = rendered(any_dag, job)
        assert SECRET not in str([getattr(task, field) for field in task.template_fields])


def test_the_schedules_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    def schedules() -> tuple[Any, Any]:
        bag = DagBag(ROOT / "dags")
        return tuple(bag.dags[name].schedule for name in ("lung_segmentation", "lung_masks"))

    weekly, daily = schedules()
    assert weekly.expression == "0 0 * * 0"
    assert daily.timetable.expression == "0 0 * * *"
    for variable in ("LUNG_SCHEDULE", "LUNG_MASKS_SCHEDULE"):
        monkeypatch.setenv(variable, "0 3 * * *")
    at_three, masks_at_three = schedules()
    assert at_three.expression == masks_at_three.timetable.expression == "0 3 * * *"
    for variable in ("LUNG_SCHEDULE", "LUNG_MASKS_SCHEDULE"):
        monkeypatch.setenv(variable, "never")
    never, champion_only = schedules()
    assert never is None
    assert [asset.name for asset in champion_only] == ["lung_champion"]
