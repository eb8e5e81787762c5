"""A process is a rank if the launcher started it, whatever other variables are left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from jobs.segmentation import ranks
from tests.support.films import ROOT

pytestmark = pytest.mark.slow

LEFT_OVER = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29511",
}
ANSWER = """
import json, os
from jobs.segmentation import distributed, ranks
if not ranks.is_rank():
    distributed.init()
answers = ranks.is_rank(), ranks.rank(), ranks.local_rank(), ranks.world_size()
print(json.dumps([*answers, distributed.world_size()]))
"""


def answers(environment: dict[str, str]) -> list[object]:
    """Whether a child with these variables is a rank; its rank, local rank and two world sizes."""
    result: list[object] = json.loads(
        subprocess.run(
            [sys.executable, "-c", ANSWER],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        ).stdout
    )
    return result


@pytest.mark.parametrize(
    "environment",
    [
        LEFT_OVER,
        {"WORLD_SIZE": "", "RANK": ""},
        {"WORLD_SIZE": "two", "RANK": "-1", "LOCAL_RANK": "x"},
        # Of a launcher that is gone.
        LEFT_OVER | {ranks.LAUNCHER: "1"},
        LEFT_OVER | {ranks.LAUNCHER: ""},
    ],
)
def test_variables_that_are_left_over_make_no_rank(environment: dict[str, str]) -> None:
    assert answers(environment) == [False, 0, 0, 1, 1]


def test_a_child_of_the_launcher_is_the_rank_that_its_variables_name() -> None:
    environment = LEFT_OVER | {ranks.LAUNCHER: str(os.getpid())}
    assert answers(environment) == [True, 1, 1, 2, 1]
