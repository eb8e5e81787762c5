"""The errors of the jobs: one class for each exit code."""

from __future__ import annotations

import pytest

from jobs import errors

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.JobError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_exit_code_gives_the_class_that_has_it(kind: type[errors.JobError]) -> None:
    error = errors.error_of_exit_code(kind.exit_code, "the films are blank")
    assert issubclass(kind, type(error))
    assert (error.exit_code, str(error)) == (kind.exit_code, "the films are blank")


def test_an_exit_code_without_a_class_is_kept() -> None:
    error = errors.error_of_exit_code(137, "killed")
    assert (type(error), error.exit_code, str(error)) == (errors.ProcessError, 137, "killed")
