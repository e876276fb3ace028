"""GPU figures, with a stand-in for NVIDIA's library."""

from __future__ import annotations

import sys

import pytest

from fake_nvml import Gpu, Nvml, NVMLError, install
from trainlab.system import Gpus

GIB = 1 << 30


@pytest.fixture
def nvml(monkeypatch) -> Nvml:
    """Three GPUs: A and B of one kind, and C, which tells no power."""
    return install(
        monkeypatch,
        Gpu("GPU-aaaa-1", load=90, memory=8 * GIB, watts=300, celsius=70),
        Gpu("GPU-bbbb-2", load=50, memory=4 * GIB, watts=200, celsius=80),
        Gpu(b"GPU-cccc-3", load=10, memory=2 * GIB, celsius=60),
    )


def test_several_gpus_are_a_mean_two_sums_and_the_hottest(nvml):
    assert Gpus().sample() == {
        "gpu_percent": 50,
        "gpu_memory_gib": 14,
        "gpu_watts": 500,  # of the two that tell it
        "gpu_celsius": 80,
    }


@pytest.mark.parametrize(
    ("setting", "memory"),
    [
        ("0", 8),
        ("2,0", 10),
        ("GPU-bbbb-2", 4),
        ("GPU-c", 2),  # the beginning will do, as for CUDA
        ("1,7,0", 4),  # CUDA stops at the first that it does not know
        (" 1 , 2", 6),
    ],
)
def test_only_the_gpus_that_cuda_shows_count(nvml, monkeypatch, setting, memory):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert Gpus().sample()["gpu_memory_gib"] == memory


@pytest.mark.parametrize("setting", ["", "-1", "GPU-", "MIG-1"])
def test_hidden_gpus_have_no_figures(nvml, monkeypatch, setting):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert Gpus().sample() == {}


def test_a_figure_that_a_gpu_does_not_tell_is_left_out(nvml, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert set(Gpus().sample()) == {"gpu_percent", "gpu_memory_gib", "gpu_celsius"}


def test_the_library_is_let_go(nvml):
    gpus = Gpus()
    assert nvml.open == 1
    gpus.close()
    gpus.close()
    assert nvml.open == 0
    assert gpus.sample() == {}


def test_without_a_driver_there_are_no_figures(nvml, monkeypatch):
    def fail():
        raise NVMLError("driver not loaded")

    monkeypatch.setattr(nvml, "nvmlInit", fail)
    assert Gpus().sample() == {}


def test_without_the_library_there_are_no_figures(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it raises ImportError
    assert Gpus().sample() == {}


@pytest.mark.gpu
def test_a_real_gpu_tells_its_memory(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus = Gpus()
    assert gpus.sample()["gpu_memory_gib"] > 0
    gpus.close()
