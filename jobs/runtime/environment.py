"""An environment for child processes of libraries that only pass on os.environ."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def environment_for_children(environment: Mapping[str, str]) -> Iterator[None]:
    """Replace os.environ while the block runs, and restore it however the block is left.

    torch's launcher needs it; where a library takes an environment as an argument, use that.
    """
    before = dict(os.environ)
    _replace(environment)
    try:
        yield
    finally:
        _replace(before)


def _replace(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
