"""Slots on GPUs, with a stand-in for NVIDIA's library, and on CPUs."""

from __future__ import annotations

import sys

import pytest

from fake_nvml import Gpu, Nvml, install
from trainlab.errors import UserError
from trainlab.sweeps import slots

MIB = 1 << 20
UUIDS = ("GPU-aaaa", b"GPU-bbbb")


@pytest.fixture
def nvml(monkeypatch) -> Nvml:
    """Two GPUs that nobody uses."""
    return install(monkeypatch, *(Gpu(uuid, memory=300 * MIB, reserved=5000 * MIB) for uuid in UUIDS))


def names(found: slots.Slots) -> list[str]:
    return [slot.name for slot in found.all]


def test_each_gpu_is_a_slot_by_its_uuid_with_its_share_of_the_cpus(nvml):
    found = slots.find(cpus=8)
    assert names(found) == ["GPU-aaaa", "GPU-bbbb"]
    assert found.all[1].environment == {"CUDA_VISIBLE_DEVICES": "GPU-bbbb", "OMP_NUM_THREADS": "4"}
    assert found.remark == ""


def test_only_the_gpus_that_this_process_may_use_are_slots(nvml, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert names(slots.find()) == ["GPU-bbbb"]


def test_shared_gpus_are_said_to_be_shared(nvml):
    found = slots.find(per_gpu=2, cpus=8)
    assert names(found) == ["GPU-aaaa", "GPU-bbbb", "GPU-aaaa/1", "GPU-bbbb/1"]
    assert {slot.gpu for slot in found.all} == {"GPU-aaaa", "GPU-bbbb"}
    assert {slot.threads for slot in found.all} == {2}
    assert "shared by 2 trials" in found.remark
    assert names(slots.find(3, per_gpu=2)) == ["GPU-aaaa", "GPU-bbbb", "GPU-aaaa/1"]


@pytest.mark.parametrize("sign", ["process", "memory"])
def test_a_gpu_that_somebody_else_uses_is_left_alone(nvml, sign):
    if sign == "process":
        nvml.gpus[0].processes = [4711]
    else:  # in a container the processes of others are out of sight
        nvml.gpus[0].memory = 3000 * MIB
    found = slots.find()
    assert names(found) == ["GPU-bbbb"]
    assert "GPU-aaaa" in found.remark
    nvml.gpus[1].processes = [4712]
    with pytest.raises(UserError, match="--wait-for-gpu"):
        slots.find()


def test_a_gpu_that_is_waited_for_is_a_slot_once_it_is_free(nvml):
    nvml.gpus[0].processes = [4711]
    found = slots.find(wait=True)
    assert [slot.name for slot in found.free(set())] == ["GPU-bbbb"]
    nvml.gpus[0].processes = []
    assert [slot.name for slot in found.free({"GPU-bbbb"})] == ["GPU-aaaa"]


def test_a_gpu_that_a_trial_of_ours_uses_takes_a_second_one_where_it_is_shared(nvml):
    found = slots.find(per_gpu=2)
    nvml.gpus[0].processes = [1]
    assert [slot.name for slot in found.free({"GPU-aaaa"})] == ["GPU-bbbb", "GPU-aaaa/1", "GPU-bbbb/1"]


def test_without_a_gpu_slots_share_the_cpus(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = slots.find(3, cpus=8)
    assert names(found) == ["cpu-0", "cpu-1", "cpu-2"]
    assert found.all[0].environment == {"OMP_NUM_THREADS": "2"}
    assert slots.find(8, cpus=2).all[0].threads == 1
    assert len(slots.find().all) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"count": 0}, "--slots 0"),
        ({"per_gpu": 0}, "--per-gpu 0"),
        ({"count": 3}, "--per-gpu 2"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(nvml, options, sentence):
    with pytest.raises(UserError, match=sentence):
        slots.find(**options)


def test_a_share_of_a_gpu_needs_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UserError, match="Say --slots 2"):
        slots.find(per_gpu=2)
