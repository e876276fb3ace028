"""What the GPUs do, by NVIDIA's management library (NVML)."""

from __future__ import annotations

import os
from contextlib import suppress
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GIB = 1 << 30


class Gpus:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; none where there is no driver. Use it from one thread."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        with suppress(Exception):  # no driver, another one than the library's, no permission: no figures
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = list(_visible(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES")))

    def sample(self) -> dict[str, float]:
        """Return gpu_percent, gpu_memory_gib, gpu_watts and gpu_celsius as they are now.

        Of several GPUs: the mean of the percents, the sum of memory and watts, the hottest. They are whole
        GPUs' figures, whoever else uses them. What a GPU does not tell is left out.
        """
        nvml = self._nvml
        if nvml is None:
            return {}
        measures: dict[str, tuple[Callable[[list[float]], float], Callable[[Any], float]]] = {
            "gpu_percent": (fmean, lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
            "gpu_memory_gib": (sum, lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used / GIB),
            "gpu_watts": (sum, lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            "gpu_celsius": (max, lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
        }
        values = {name: self._each(read) for name, (_, read) in measures.items()}
        return {name: float(measures[name][0](told)) for name, told in values.items() if told}

    def close(self) -> None:
        """Let the library go."""
        if self._nvml is not None:
            with suppress(Exception):
                self._nvml.nvmlShutdown()
        self._nvml = None

    def _each(self, read: Callable[[Any], float]) -> list[float]:
        told = []
        for handle in self._handles:
            with suppress(self._nvml.NVMLError):
                told.append(float(read(handle)))
        return told


def _visible(nvml: Any, setting: str | None) -> Iterator[Any]:
    """Yield the handles of the GPUs that CUDA shows: all of them, or those named up to the first unknown one.

    A number counts as NVML counts, by the bus; CUDA does so with CUDA_DEVICE_ORDER=PCI_BUS_ID, or where all
    GPUs are of one kind.
    """
    every = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if setting is None:
        yield from every
        return
    for name in setting.split(","):
        if name.strip().isdigit():
            found = every[int(name) :][:1]
        else:
            found = [each for each in every if name.strip() and _uuid(nvml, each).startswith(name.strip())]
        if len(found) != 1:
            return
        yield found[0]


def _uuid(nvml: Any, handle: Any) -> str:
    told = nvml.nvmlDeviceGetUUID(handle)
    return told.decode() if isinstance(told, bytes) else told
