"""GPUs as NVIDIA's driver lists them, and how many of them a task needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass

from airflow.sdk.exceptions import AirflowFailException

# The program is in every container that has GPUs: NVIDIA's toolkit mounts it.
NVIDIA_SMI = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.used",
    "--format=csv,noheader,nounits",
)
# Above it a program computes on the GPU. An idle driver holds up to about 600 MiB, a desktop some
# hundreds. Memory alone tells: `nvidia-smi` in a container lists no process of another one.
IDLE_MIB = 1024


@dataclass(frozen=True)
class Gpu:
    """index: its number on the machine. uuid: the name that stays, also if another GPU fails.

    used_mib: memory in use; 0 where the driver does not tell.
    """

    index: int
    uuid: str
    name: str
    used_mib: int

    @property
    def is_idle(self) -> bool:
        return self.used_mib <= IDLE_MIB


def gpus_of(listing: str) -> Iterator[Gpu]:
    """The GPUs of the output of NVIDIA_SMI; lines that are none, such as warnings, are left out."""
    for line in listing.splitlines():
        index, uuid, name, used = ([text.strip() for text in line.split(",")] + [""] * 4)[:4]
        if index.isdecimal() and uuid:
            yield Gpu(int(index), uuid, name, int(used) if used.isdecimal() else 0)


def numbers(gpus: Iterable[Gpu]) -> str:
    """The GPUs in a sentence: "GPU 0, 1, 5"."""
    return "GPU " + ", ".join(str(gpu.index) for gpu in gpus)


def needed(share: str, gpus: Sized) -> int:
    """How many of a machine's GPUs a task of this share needs at least; 0: it computes on the CPU.

    `share` is a number, "any" or "all", as `gpu_share` says. Raises AirflowFailException where the
    machine has fewer: no retry would find more.
    """
    if not share.isdecimal():
        return min(1, len(gpus))
    if int(share) > len(gpus):
        raise AirflowFailException(
            f"The task needs {share} GPUs and the machine of the jobs offers {len(gpus)}: lower "
            "GPUs on the form or LUNG_GPUS, or mend NVIDIA's driver and container toolkit there"
        )
    return int(share)
