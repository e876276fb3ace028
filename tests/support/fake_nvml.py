"""A stand-in for NVIDIA's library, as the package pynvml offers it: what its GPUs are is a test's to say."""

# ruff: noqa: N802 - the library's own names

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest


class NVMLError(Exception):
    pass


@dataclass
class Gpu:
    uuid: str | bytes
    load: int = 0  # percent
    memory: int = 0  # bytes that processes use
    reserved: int = 0  # bytes for the driver itself, which the older question counts, too
    watts: int | None = None  # None: it does not tell
    celsius: int = 0
    processes: list[int] = field(default_factory=list)


class Nvml:
    """The library: a GPU's handle is its number."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    nvmlMemory_v2 = 2  # noqa: N815

    def __init__(self, *gpus: Gpu) -> None:
        self.gpus, self.open = gpus, 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return [gpu.uuid if isinstance(gpu.uuid, str) else gpu.uuid.decode() for gpu in self.gpus].index(uuid)

    def nvmlDeviceGetUUID(self, handle: int) -> str | bytes:
        return self.gpus[handle].uuid

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=self.gpus[handle].load)

    def nvmlDeviceGetMemoryInfo(self, handle: int, version: int | None = None) -> SimpleNamespace:
        gpu = self.gpus[handle]
        return SimpleNamespace(used=gpu.memory + (gpu.reserved if version is None else 0))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[int]:
        return self.gpus[handle].processes

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if (watts := self.gpus[handle].watts) is None:
            raise NVMLError("not supported")
        return watts * 1000

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return self.gpus[handle].celsius


def install(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> Nvml:
    """Put it in the library's place for a test, which sees all GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", stand_in := Nvml(*gpus))
    return stand_in
