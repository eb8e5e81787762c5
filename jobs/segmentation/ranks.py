"""Which processes are ranks: those that `launcher.launch` started, and no others.

WORLD_SIZE, RANK and LOCAL_RANK may be left over from torchrun, a scheduler or a shell. They
count only beside a variable of our own that names the parent process. Imports no torch.
"""

from __future__ import annotations

import os

# Set by the launcher in the environment of each rank: the launcher's process id.
LAUNCHER = "LUNG_LAUNCHER_PID"
# Read once: a rank whose launcher was killed has another parent, but stays a rank.
_IS_CHILD_OF_LAUNCHER = os.environ.get(LAUNCHER) == str(os.getppid())


def is_rank() -> bool:
    """Whether this process is one of several that train together."""
    return _IS_CHILD_OF_LAUNCHER


def rank() -> int:
    """The number of this rank, from 0; 0 in a process that is no rank."""
    return int(os.environ["RANK"]) if is_rank() else 0


def local_rank() -> int:
    """The number of this rank on its machine, from 0; 0 in a process that is no rank."""
    return int(os.environ["LOCAL_RANK"]) if is_rank() else 0


def world_size() -> int:
    """The number of ranks; 1 in a process that is no rank."""
    return int(os.environ["WORLD_SIZE"]) if is_rank() else 1
