"""Where trials run side by side: a slot is a GPU, a share of one, or a share of the CPUs."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainlab import system
from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Container

IDLE = 1 << 30  # bytes: a GPU with more in use than that is used, even where its processes are out of sight
SHARED = "GPU shared by {} trials at a time: nothing keeps the memory or the time of one from the others."


@dataclass(frozen=True)
class Slot:
    """A place for one trial: the environment that its run gets, and its GPU's UUID, '' without one."""

    name: str  # the same after a restart: "GPU-5f1c...", "GPU-5f1c.../1", "cpu-0"
    gpu: str = ""
    threads: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """What tells a run where it may compute.

        OMP_NUM_THREADS is what torch, OpenMP and `training.workers.threads_for` take their threads from.
        """
        known = {"OMP_NUM_THREADS": str(self.threads)}
        return known | ({"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {})


class Slots:
    """The slots of this process, and which of them can take a trial now.

    Attributes: `all`; `remark`, what to say of them before anything starts, '' for nothing.
    """

    def __init__(self, every: list[Slot], remark: str = "") -> None:
        self.all, self.remark = every, remark

    def free(self, taken: Container[str]) -> list[Slot]:
        """Return the slots that no trial of ours has, less those of GPUs that somebody else computes on."""
        open_here = [slot for slot in self.all if slot.name not in taken]
        ours = {slot.gpu for slot in self.all if slot.gpu and slot.name in taken}
        asked = {slot.gpu for slot in open_here if slot.gpu} - ours
        used = busy(asked) if asked else set()
        return [slot for slot in open_here if slot.gpu not in used]


def find(
    count: int | None = None, *, gpus: bool = True, per_gpu: int = 1, wait: bool = False, cpus: float = 0.0
) -> Slots:
    """Return a slot for each GPU that nobody uses, or slots that share the CPUs where there is no GPU.

    Args:
        count: How many slots at most; by default one a GPU, and one where there is none.
        gpus: False leaves the GPUs alone.
        per_gpu: Trials that share one GPU.
        wait: Take GPUs too that others use now: a trial starts there once they are free.
        cpus: The CPUs to share; by default those that this process may use.

    Raises:
        UserError: A number is below 1, or others use all GPUs.
    """
    for name, value in (("--slots", count), ("--per-gpu", per_gpu)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value}: expected a number above 0.")
    cpus = cpus or system.cpus()
    known = visible() if gpus else []
    if not known:
        if per_gpu > 1:
            raise UserError(f"--per-gpu {per_gpu}: no GPU is seen here. Say --slots {per_gpu} instead.")
        count = count or 1
        threads = max(1, math.ceil(cpus) // count)
        return Slots([Slot(f"cpu-{number}", threads=threads) for number in range(count)])
    used = set() if wait else busy(set(known))
    free = [uuid for uuid in known if uuid not in used]
    if not free:
        raise UserError(
            f"All {len(known)} GPUs are used by others: {', '.join(known)}. Wait for them: --wait-for-gpu"
        )
    # the first of each GPU come first: a few trials are spread, not packed
    places = [(uuid, share) for share in range(per_gpu) for uuid in free][:count]
    if count is not None and count > len(places):
        raise UserError(
            f"--slots {count}: {len(free)} GPUs have room for {len(places)} trials at a time. Share them: "
            f"--per-gpu {math.ceil(count / len(free))}"
        )
    threads = max(1, math.ceil(cpus) // len(places))
    shares = max(sum(uuid == each for each, _ in places) for uuid in free)
    left = f" Left alone, since others use them: {', '.join(sorted(used))}." if used else ""
    made = [Slot(f"{uuid}/{share}" if share else uuid, uuid, threads) for uuid, share in places]
    return Slots(made, (SHARED.format(shares) if shares > 1 else "") + left)


def visible() -> list[str]:
    """Return the UUIDs of the GPUs that CUDA_VISIBLE_DEVICES leaves; none where there is no driver."""
    with system.nvml() as nvml:
        if nvml is None:
            return []
        return [
            system.gpu_uuid(nvml, handle)
            for handle in system.visible_gpus(nvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
        ]


def busy(uuids: set[str]) -> set[str]:
    """Return those GPUs that some process computes on, whoever it is.

    In a container the processes of others are out of sight; their memory is not.
    """
    found = set()
    with system.nvml() as nvml:
        if nvml is None:
            return set()
        for uuid in uuids:
            with suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
                if nvml.nvmlDeviceGetComputeRunningProcesses(handle) or _memory(nvml, handle) > IDLE:
                    found.add(uuid)
    return found


def _memory(nvml: Any, handle: Any) -> int:
    """Return the bytes in use, less those that the driver keeps for itself where it tells them apart."""
    with suppress(AttributeError, nvml.NVMLError):
        return int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used)
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
