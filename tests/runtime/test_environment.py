from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jobs.runtime.environment import environment_for_children

PRINT = "import os; print(os.environ.get('ADDED'), os.environ.get('REMOVED'))"


def test_children_see_the_environment_of_the_block_and_this_process_gets_its_own_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REMOVED", "1")
    before = dict(os.environ)
    environment = {name: value for name, value in before.items() if name != "REMOVED"}
    with pytest.raises(ZeroDivisionError), environment_for_children(environment | {"ADDED": "2"}):
        child = subprocess.run([sys.executable, "-c", PRINT], capture_output=True, text=True)
        assert child.stdout == "2 None\n"
        raise ZeroDivisionError
    assert dict(os.environ) == before
