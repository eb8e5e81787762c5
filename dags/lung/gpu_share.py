"""Each task's share of the deployment's GPUs, by LUNG_GPUS and GPUs on the form.

`train` takes all of them. `predict`, of which every shard is a task, `inbox` and `publish`, which
scores the champion, run the network in one process and take one. No other job runs it.

The share of a task is the operators' option `gpus`: a number; "all", every free GPU; or "any", one.
The last two mean the CPU on a machine without GPUs.

The pool of LUNG_POOL has as many slots as the deployment has GPUs, and a task takes as many slots
as GPUs. Slots are fixed when a DAG is parsed. With LUNG_GPUS=all the number is unknown then: a
training takes one slot, and the other tasks are in the default pool, where a machine without GPUs
runs them side by side; on one with GPUs they wait for a free one.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param

from lung.settings import setting

ALL, ANY = "all", "any"
# The largest number on the form where the deployment's is unknown.
MOST_GPUS = 64


def deployment_gpus() -> int | None:
    """The number of LUNG_GPUS; None for `all`. Raises ValueError for anything else."""
    text = setting("LUNG_GPUS")
    if text == ALL:
        return None
    if not text.isdecimal():
        raise ValueError(f"LUNG_GPUS is {text!r}: it can be all or a number, 0 for the CPU")
    return int(text)


def all_gpus() -> dict[str, Any]:
    """The operator's options of a job that computes on all GPUs, or on as many as the form says."""
    gpus = deployment_gpus()
    share = ALL if gpus is None else gpus
    return {
        "gpus": f"{{{{ '{share}' if params.gpus is none else params.gpus }}}}",
        # A training on the CPU takes a slot too: two would share its cores.
        "pool": setting("LUNG_POOL"),
        "pool_slots": max(1, gpus or 0),
    }


def one_gpu() -> dict[str, Any]:
    """The operator's options of a job that computes on one GPU; 0 on the form takes it away."""
    gpus = deployment_gpus()
    if gpus == 0:
        return {}
    share = ANY if gpus is None else 1
    options = {"gpus": f"{{{{ 0 if params.get('gpus') == 0 else '{share}' }}}}"}
    return options if gpus is None else options | {"pool": setting("LUNG_POOL")}


def gpus_param() -> Param:
    """The form's field: a run may take fewer GPUs than the deployment gives, never more."""
    gpus = deployment_gpus()
    given = "all free GPUs of the machine" if gpus is None else f"the deployment's {gpus}"
    return Param(
        None,
        type=["integer", "null"],
        minimum=0,
        maximum=MOST_GPUS if gpus is None else gpus,
        title="GPUs",
        description=f"GPUs that train together; empty: {given}; 0: all tasks compute on the CPU",
    )
