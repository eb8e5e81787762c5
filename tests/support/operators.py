"""One interface to both operators, so that the tests of endings run on both backends.

`python -m tests.support.operators BACKEND OPTIONS` executes an operator in a process that a test
can kill.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.airflow_tasks import ROOT, RUN_ID, command, connection_of, execute

LABELS = {"lung.dag": "lung_segmentation", "lung.run": RUN_ID, "lung.task": "train"}


class Backend:
    """Builds operators that run Python code as their job; lists what is left of the jobs."""

    name = ""

    def __init__(self, s3: Mapping[str, str], out: str) -> None:
        self.s3 = s3
        self.result_uri = f"{out}/results/train--1-1.json"
        self.operators: list[Any] = []

    def build(self, code: str, **options: Any) -> Any:
        """The operator whose job runs `code`, with `options` in place of the usual ones."""
        self.operators.append(operator(self.name, self.options(code) | options))
        return self.operators[-1]

    def options(self, code: str) -> dict[str, Any]:
        return {
            "task_id": "train",
            "command": command(code),
            "environment": {"RESULT_URI": self.result_uri},
        }

    def left(self) -> list[Any]:
        """The containers or processes that are left of the jobs."""
        raise NotImplementedError

    def start_other(self, *, task: str = "train", try_number: int = 1) -> Callable[[], bool]:
        """Start a job of another task or try; returns a function that says whether it runs."""
        raise NotImplementedError

    def close(self) -> None:
        pass

    @contextmanager
    def task_process(self, code: str) -> Iterator[subprocess.Popen[str]]:
        """A process that executes the operator, once the job has printed "ready"."""
        arguments = [self.name, json.dumps(self.options(code))]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.operators", *arguments],
            cwd=ROOT,
            env=os.environ
            | {
                "PYTHONPATH": f"{ROOT}:{ROOT / 'dags'}",
                "AIRFLOW_CONN_LUNG_S3": connection_of(self.s3),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line)
                if " ready " in line:
                    break
            else:
                raise AssertionError("".join(lines))
            yield process
            process.kill()


class ContainerBackend(Backend):
    name = "docker"

    def __init__(self, s3: Mapping[str, str], out: str) -> None:
        import docker

        super().__init__(s3, out)
        self.engine = docker.from_env()
        self._others: list[Any] = []

    def options(self, code: str) -> dict[str, Any]:
        return super().options(code) | {
            "image": "lung-jobs:local",
            "network_mode": self.s3["LUNG_DOCKER_NETWORK"],
            "mem_limit": "1g",
            "shm_size": "64m",
        }

    def left(self, **labels: str) -> list[Any]:
        filters = {"label": [f"{name}={value}" for name, value in (LABELS | labels).items()]}
        containers: list[Any] = self.engine.containers.list(all=True, filters=filters)
        return containers

    def start_other(self, *, task: str = "train", try_number: int = 1) -> Callable[[], bool]:
        labels = LABELS | {
            "lung.task": task,
            "lung.network": self.s3["LUNG_DOCKER_NETWORK"],
            "lung.map_index": "-1",
            "lung.try": str(try_number),
        }
        other = self.start_container(labels)
        return lambda: other.id in {container.id for container in self.engine.containers.list()}

    def start_container(self, labels: Mapping[str, str], seconds: float = 60) -> Any:
        """A container with the labels that sleeps."""
        container = self.engine.containers.run(
            "lung-jobs:local",
            ["sleep", str(seconds)],
            labels=labels,
            detach=True,
            init=True,
            network_mode="none",
        )
        self._others.append(container)
        return container

    def close(self) -> None:
        from docker.errors import NotFound

        for container in self._others:
            try:
                container.remove(force=True)
            except NotFound:
                continue
        for operator in self.operators:
            if operator.hook.client_created:
                operator.hook.api_client.close()
        self.engine.close()


class ProcessBackend(Backend):
    name = "process"

    def __init__(self, s3: Mapping[str, str], out: str, home: str) -> None:
        super().__init__(s3, out)
        self._home = home
        self._others: list[subprocess.Popen[bytes]] = []

    def options(self, code: str) -> dict[str, Any]:
        options = super().options(code)
        options["environment"]["PYTHONPATH"] = str(ROOT)
        return options | {"python": sys.executable, "home": self._home}

    def left(self) -> list[Any]:
        from lung.process_operator import processes

        return list(processes(self.result_uri.removesuffix("1.json")))

    def start_other(self, *, task: str = "train", try_number: int = 1) -> Callable[[], bool]:
        uri = self.result_uri.replace("train--1-1", f"{task}--1-{try_number}")
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        other = subprocess.Popen(sleep, env=os.environ | {"RESULT_URI": uri})
        self._others.append(other)
        return lambda: other.poll() is None

    def close(self) -> None:
        for other in self._others:
            other.kill()
            other.wait()


def operator(backend: str, options: Mapping[str, Any]) -> Any:
    """The operator of the backend `docker` or `process`."""
    if backend == "docker":
        from lung.container_operator import ContainerOperator

        return ContainerOperator(**options)
    from lung.process_operator import ProcessOperator

    return ProcessOperator(**options)


def wait_until(condition: Callable[[], object], *, seconds: float) -> float:
    """Wait until the condition is true; returns the seconds, AssertionError after `seconds`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - started


if __name__ == "__main__":
    execute(operator(sys.argv[1], json.loads(sys.argv[2])))
