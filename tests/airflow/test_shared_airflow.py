"""Into an Airflow of others by the lines of dags/README.md; its DAGs and plugins stay intact."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.airflow_tasks import ROOT

SECONDS_TO_START = 180

pytestmark = [
    pytest.mark.airflow,
    # Raised by Airflow's reader of .airflowignore.
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]

# The other team's, with a module of a name that the package `lung` has too.
OTHERS = {
    "plugins/settings.py": 'GREETING = "from the other team"\n',
    "plugins/team_plugin.py": """
from airflow.plugins_manager import AirflowPlugin
from fastapi import FastAPI

import settings

app = FastAPI()


@app.get("/")
def show() -> str:
    return settings.GREETING


class TeamPlugin(AirflowPlugin):
    name = "team"
    fastapi_apps = [{"name": "Team", "url_prefix": "/team", "app": app}]
    external_views = [
        {"name": "Team", "href": "team/", "destination": "dag_run", "url_route": "team"}
    ]
""",
    "plugins/.airflowignore": "drafts\n",
    "plugins/drafts/broken.py": "raise RuntimeError('a draft, never loaded')\n",
    "dags/team.py": """
from airflow.sdk import DAG

import team_code

with DAG(dag_id=team_code.NAME) as dag:
    pass
""",
    "dags/team_code.py": 'NAME = "team"\n',
    "dags/.airflowignore": "drafts\n",
    "dags/drafts/broken.py": "raise RuntimeError('a draft: airflow, DAG')\n",
}
SUBFOLDER = "radiology"


@dataclass(frozen=True)
class Shared:
    """An Airflow of others; `installed` once the page's lines have run."""

    home: Path
    environment: dict[str, str]

    def airflow(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "airflow", *arguments, **environment)

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment | environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=180,
        )


def of_the_page(language: str) -> str:
    """The page's one block of a language, without its indent."""
    page = (ROOT / "dags" / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^ *```{language}\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    return re.sub(r"^ +", "", block, flags=re.MULTILINE)


@pytest.fixture(scope="module", params=["glob", "regexp"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    home = tmp_path_factory.mktemp("shared")
    for name, content in OTHERS.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    foreign = ("AIRFLOW", "LUNG_", "PYTHON")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.lstrip("_").startswith(foreign)},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX": request.param,
    }
    folders = {"PLUGINS": str(home / "plugins"), "DAGS": str(home / "dags" / SUBFOLDER)}
    Path(folders["DAGS"]).mkdir()
    lines = ["bash", "-euc", of_the_page("bash")]
    subprocess.run(lines, cwd=ROOT, env=environment | folders, check=True, timeout=60)
    (home / "plugins" / "lung_settings.toml").write_text(of_the_page("toml"))
    return Shared(home, environment)


def test_of_the_package_the_plugin_loader_sees_the_plugin_alone(shared: Shared) -> None:
    from airflow._shared.module_loading import find_path_from_directory

    syntax = shared.environment["AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX"]
    plugins = shared.home / "plugins"
    paths = [Path(path) for path in find_path_from_directory(plugins, ".airflowignore", syntax)]
    found = {str(path.relative_to(plugins)) for path in paths if path.suffix == ".py"}
    assert found == {"settings.py", "team_plugin.py", "lung/run_report.py"}


PARSE = """
import json
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.settings import DAGS_FOLDER
from pathlib import Path

# As a worker does (BundleDagBag is of airflow.sdk.execution_time.task_runner.parse).
bag = BundleDagBag(DAGS_FOLDER, bundle_path=Path(DAGS_FOLDER), bundle_name="dags-folder")
train = bag.dags["lung_segmentation"].task_dict["train"]
print(json.dumps({
    "dags": sorted(bag.dags), "errors": bag.import_errors,
    "out": train.command[train.command.index("--out") + 1],
    "result": train.environment["RESULT_URI"], "image": train.image,
}))
"""


def parsed(shared: Shared, **environment: str) -> dict[str, Any]:
    process = shared.python("-c", PARSE, **environment)
    assert process.returncode == 0, process.stderr
    content: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return content


@pytest.mark.slow
def test_the_dags_are_found_in_a_subfolder_beside_those_of_others(shared: Shared) -> None:
    answer = parsed(shared)
    assert answer["errors"] == {}
    assert answer["dags"] == ["lung_masks", "lung_segmentation", "team"]


@pytest.mark.slow
def test_a_worker_whose_environment_names_another_bucket_uses_the_shared_one(
    shared: Shared,
) -> None:
    other = {"LUNG_BUCKET_URI": "s3://other/place", "LUNG_JOBS_IMAGE": "other:1"}
    file = shared.home / "plugins" / "lung_settings.toml"
    with_file = parsed(shared, **other)
    assert with_file["out"] == "s3://lung/pipeline"
    assert with_file["result"].startswith("s3://lung/pipeline/runs/")
    assert with_file["image"] == "registry.example.org/lung-jobs:0.2.0"
    content = file.read_text()
    file.unlink()
    try:  # the file is what decides
        without = parsed(shared, **other)
    finally:
        file.write_text(content)
    assert (without["out"], without["image"]) == ("s3://other/place", "other:1")


@pytest.mark.slow
def test_airflow_lists_both_plugins_and_both_tabs_answer(shared: Shared) -> None:
    before = {name: (shared.home / name).read_text() for name in OTHERS}
    migration = shared.airflow("db", "migrate")
    assert migration.returncode == 0, migration.stderr
    assert import_errors(shared) == []
    (shared.home / "dags" / "broken.py").write_text("from airflow.sdk import DAG\nimport absent\n")
    (error,) = import_errors(shared)
    (shared.home / "dags" / "broken.py").unlink()
    assert "No module named 'absent'" in error["error"]
    with api_server(shared) as call:
        plugins = call("/api/v2/plugins").json()["plugins"]
        sources = {entry["name"]: entry["source"] for entry in plugins}
        assert sources["lung_training_report"] == "$PLUGINS_FOLDER/lung/run_report.py"
        assert sources["team"] == "$PLUGINS_FOLDER/team_plugin.py"
        assert call("/api/v2/plugins/importErrors").json()["total_entries"] == 0
        assert call("/team/").json() == "from the other team"
        tab = call("/training-report/dags/lung_segmentation/runs/absent")
        assert (tab.status_code, "No such run" in tab.text) == (404, True)
    assert {name: (shared.home / name).read_text() for name in OTHERS} == before


def import_errors(shared: Shared) -> list[dict[str, str]]:
    """What the page's command lists."""
    page = (ROOT / "dags" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"`airflow (dags list-import-errors [^`]+)`", page)
    process = shared.airflow(*command.split(), "--output", "json")
    content: list[dict[str, str]] = json.loads(process.stdout.splitlines()[-1])
    assert process.returncode == bool(content), process.stdout
    return content


@contextmanager
def api_server(shared: Shared) -> Iterator[Callable[[str], requests.Response]]:
    """An api-server of the Airflow; yields a call that asks for a path as its user."""
    (shared.home / "passwords.json").write_text('{"admin": "a password"}')
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    variables = {
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(shared.home / "passwords.json"),
    }
    command = [sys.executable, "-m", "airflow", "api-server"]
    log = shared.home / "api-server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=shared.environment | variables,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        token, limit = None, time.monotonic() + SECONDS_TO_START
        while token is None:
            assert server.poll() is None and time.monotonic() < limit, log.read_text()
            time.sleep(0.3)
            with suppress(requests.ConnectionError):
                login = {"username": "admin", "password": "a password"}
                answer = requests.post(f"{url}/auth/token", json=login, timeout=30)
                token = answer.json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        yield lambda path: requests.get(url + path, headers=headers, timeout=30)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
