from __future__ import annotations

import copy
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from jobs.cli import build_parser
from jobs.config import JOBS, build_config
from jobs.schema import form_schema
from tests.airflow_tasks import ROOT, RUN_ID

pytestmark = [
    pytest.mark.airflow,
    # Airflow's own, when it reads .airflowignore.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]

SECRET = "S3cretNobodyMaySee"


@pytest.fixture(scope="module", params=["docker", "process"])
def dag(request: pytest.FixtureRequest) -> Any:
    """The DAG as Airflow's own parser finds it, on each backend."""
    from airflow.dag_processing.dagbag import DagBag

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNG_BACKEND", request.param)
        patch.setenv("AIRFLOW_CONN_LUNG_S3", f"aws://key:{SECRET}@")
        bag = DagBag(ROOT / "dags")
        assert bag.import_errors == {}
        assert list(bag.dags) == ["lung_segmentation"]
        yield bag.dags["lung_segmentation"]


class Upstream:
    """A task instance whose upstream tasks have all written a manifest."""

    task_id, map_index, try_number = "task", -1, 2

    def xcom_pull(self, task: str, map_indexes: int | None = None) -> Any:
        result = {"manifest": f"s3://lung/pipeline/{task}/fp/manifest.json"}
        return [result] if task == "predict" and map_indexes is None else result


def rendered(dag: Any, job: str, **params: Any) -> Any:
    """The job's task with its templates filled in."""
    task = dag.get_task(job)
    task = task.unmap({"shard": "2/3"}) if task.is_mapped else copy.copy(task)
    context = {
        "params": dag.params.dump() | params,
        "run_id": RUN_ID,
        "ti": Upstream(),
        "task": task,
    }
    task.render_template_fields(context, dag.get_template_env())
    return task


def test_it_imports_without_a_warning_and_without_the_jobs_or_their_packages() -> None:
    code = (
        "import sys, lung_segmentation, lung.container_operator, lung.process_operator;"
        "print([n for n in ('jobs', 'torch', 'numpy', 'boto3') if n in sys.modules])"
    )
    python = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(python, cwd=ROOT / "dags", capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_the_jobs_run_in_their_order(dag: Any) -> None:
    jobs = list(JOBS)
    for before, after in pairwise(jobs):
        assert after in dag.get_task(before).downstream_task_ids
    assert {task.task_id for task in dag.roots} == {"download", "shards"}
    assert {task.task_id for task in dag.leaves} == {"publish"}
    assert set(dag.task_ids) == {*jobs, "shards"}


@pytest.mark.parametrize("job", JOBS)
def test_every_command_line_is_one_that_the_jobs_accept(dag: Any, job: str) -> None:
    command = rendered(dag, job).command
    assert command[:4] == ["python", "-m", "jobs", job]
    arguments = vars(build_parser().parse_args(command[3:]))
    config = build_config(job, arguments)
    assert config.out == "s3://lung/pipeline"
    assert config.run_id == "manual__2026-11-23T00-00-00-00-00"


def test_a_form_of_other_values_reaches_the_jobs(dag: Any) -> None:
    train = rendered(dag, "train", epochs=3, learning_rate=1e-4, precision="float32").command
    config = build_config("train", vars(build_parser().parse_args(train[3:])))
    assert (config.epochs, config.learning_rate, config.precision) == (3, 1e-4, "float32")
    split = rendered(dag, "preprocess", split_file=None).command
    assert build_config("preprocess", vars(build_parser().parse_args(split[3:]))).split_file == ""


def test_each_prediction_shard_has_its_own_part_and_its_own_result(dag: Any) -> None:
    task = rendered(dag, "predict")
    assert task.command[task.command.index("--shard") + 1] == "2/3"
    assert dag.get_task("shards").python_callable("3") == ["1/3", "2/3", "3/3"]


def test_a_result_has_a_place_of_its_own_for_every_run_task_part_and_try(dag: Any) -> None:
    assert rendered(dag, "train").environment["RESULT_URI"] == (
        "s3://lung/pipeline/runs/manual__2026-11-23T00-00-00-00-00/results/task--1-2.json"
    )


def test_the_form_is_the_jobs_own_options_and_the_shards(dag: Any) -> None:
    schema = form_schema()["params"]
    assert dag.params.keys() == schema.keys() | {"shards"}
    for name, field in schema.items():
        param = dag.params.get_param(name)
        described = {"default": param.value, "description": param.description, **param.schema}
        assert described == field
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.schema["title"] and param.description


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 500), ("size", "512"), ("epochs", 0), ("min_dice", 1.5), ("source", "my films")],
)
def test_a_value_out_of_bounds_is_refused_before_anything_runs(
    dag: Any, name: str, value: Any
) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        dag.params.get_param(name).__copy__().resolve(value)


def test_policy(dag: Any) -> None:
    assert dag.schedule == "@weekly"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert {"lung"} <= dag.tags
    for task in dag.tasks:
        assert task.owner == "lung"
        assert task.retries == 2
        assert task.retry_delay == timedelta(minutes=1)
        assert task.retry_exponential_backoff == 2
        assert task.max_retry_delay == timedelta(minutes=20)
        assert timedelta() < task.execution_timeout <= timedelta(days=2)


def test_the_documentation_says_for_every_job_what_to_do_when_it_fails(dag: Any) -> None:
    rows = [line.split("|") for line in dag.doc_md.splitlines() if line.startswith("|")]
    help_of = {row[1].strip(): row[3].strip() for row in rows}
    for job in JOBS:
        assert len(help_of[job]) > 40
    titles = {dag.params.get_param(name).schema["title"] for name in dag.params}
    bold = set(dag.doc_md.split("**")[1::2])
    assert bold <= titles


def test_no_secret_stands_in_what_airflow_shows_of_a_task(dag: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    assert SECRET not in str(DagSerialization.to_dict(dag))
    for job in JOBS:
        task = rendered(dag, job)
        assert SECRET not in str([getattr(task, field) for field in task.template_fields])


def test_the_schedule_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    for given, schedule in (("0 3 * * *", "0 3 * * *"), ("never", None)):
        monkeypatch.setenv("LUNG_SCHEDULE", given)
        bag = DagBag(ROOT / "dags")
        assert bag.dags["lung_segmentation"].schedule == schedule
