"""`develop/bench`'s list, and benchmarks/gpu.py where there is no GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen

from fake_machine import Machine
from project import CHECKOUT, clean_environment

GPU = CHECKOUT / "benchmarks" / "gpu.py"
LISTS_ONE = "#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n"
NVIDIA_SMI = """#!/bin/sh
case $1 in
  --query-gpu=driver*) echo 580.1 ;;
  *) echo '80, 8192, [N/A], 70' ;;
esac
"""
PYNVML = """
import sys
from fake_nvml import Gpu, Nvml
sys.modules[__name__] = Nvml(Gpu("GPU-aaaa", load=90, memory=8 << 30, celsius=70))
"""
ROWS = {  # headings, and what stands below each in the tests' rows
    "A training step": r"tiny \| 4 \| bf16-mixed \| \d+ \| [\d,]+ \| [\d.]+ \([\d.]+ to [\d.]+\) \|",
    "torch.compile": r"tiny \| 4 \| bf16-mixed \| compiled \| [\d.]+ \|",
    "Attention for texts of any lengths": r"tiny \| 4 \| bf16-mixed \| nested \| [\d.]+ \|",
    "Two processes on one GPU": r"gloo \| 10 \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+e-\d+ \|",
    "Vitals": r"gpu_percent \| 90\.0 .* \| 80\.0 .* \| 10\.0 \| 1 \|",
    "Trainings": r"news, drawn triplets \| [\d.]+ \| held-out loss [\d.]+, at most 0\.5 wanted: ",
    "Tests": r"0 \| 0 \| 0 \| 1 \|",
}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of commands that come first."""
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


def measure(tools: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = clean_environment() | {"PATH": f"{tools}:{os.environ['PATH']}"} | environment
    given.pop("CUDA_VISIBLE_DEVICES", None)
    return subprocess.run(
        [sys.executable, GPU, *options], env=given, capture_output=True, text=True, check=False
    )


def command(folder: Path, script: str) -> None:
    (folder / "nvidia-smi").write_text(script)
    (folder / "nvidia-smi").chmod(0o755)


def test_each_benchmark_runs_by_default_or_says_why_not() -> None:
    script = (CHECKOUT / "develop" / "bench").read_text()
    listed = re.search(r"^usual=\((.*?)\)", script, re.DOTALL | re.MULTILINE)
    assert listed
    apart = dict(re.findall(r'^  \[(\w+)\]="(.+)"', script, re.MULTILINE))
    names = [*listed[1].split(), *apart]
    assert sorted(names) == sorted(path.stem for path in (CHECKOUT / "benchmarks").glob("*.py"))


def test_a_part_of_a_benchmark_is_not_run_for_one(machine: Machine) -> None:
    done = machine.make("bench", check=False, ARGS="growth killed")
    assert done.returncode == 2
    assert "error: benchmarks/killed.py is what kills kills: name that one" in done.stdout


def test_without_a_gpu_its_benchmark_says_so_before_anything_is_installed(machine: Machine) -> None:
    done = machine.make("bench", check=False, ARGS="gpu")
    assert done.returncode == 2
    assert (
        "error: no NVIDIA GPU here: nvidia-smi lists none (it says nothing). Expected: a GPU" in done.stdout
    )
    assert not (machine.folder / ".venv").exists()


@pytest.mark.skipif("+cpu" not in metadata.version("torch"), reason="torch is not built for the CPU alone")
def test_torch_for_the_cpu_is_no_reason_to_load_it(tools: Path) -> None:
    command(tools, LISTS_ONE)
    done = measure(tools)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: torch \S+\+cpu is built for the CPU; .* Nothing was measured\.\n", done.stderr
    )
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["varlen_attention", "nested_attention"])
@pytest.mark.parametrize("padded", [True, False], ids=["as on a GPU", "as on a CPU"])
def test_another_attention_is_given_each_text_alone(
    name: str, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    import gpu_parts

    from experiments.news.model import Padding
    from trainlab.training.unpadded import attend

    def kernel(query: Any, key: Any, value: Any, starts: Any, *others: Any, scale: float | None) -> Any:
        assert starts.dtype == torch.int32
        assert others[1:] == (5, 5)  # the longest
        runs = [(1, size) for size in starts.diff().tolist()]
        parts = (each.transpose(0, 1)[None] for each in (query, key, value))
        return attend(torch.nn.Identity(), *parts, None, runs=runs, scaling=scale)[0][0]

    monkeypatch.setattr(varlen, "varlen_attn", kernel)  # the true one is for CUDA alone
    runs = [(2, 3), (1, 4), (3, 5)]
    mask = torch.tensor([[1] * size + [0] * (5 - size) for texts, size in runs for _ in range(texts)])
    given = torch.randn(3, 1, 2, 25, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    wanted, _ = attend(torch.nn.Identity(), *given, None, runs=runs, scaling=0.3)
    there = Padding(mask.flatten().nonzero()[:, 0], mask) if padded else runs
    found, _ = getattr(gpu_parts, name)(None, *given, None, runs=there, dropout=0.0, scaling=0.3)
    torch.testing.assert_close(found, wanted)


@pytest.mark.slow
def test_all_that_is_measured_on_a_gpu_runs_on_a_cpu_too(tools: Path, tmp_path: Path) -> None:
    command(tools, NVIDIA_SMI)
    (tools / "pynvml.py").write_text(PYNVML)
    places = f"{tools}:{CHECKOUT / 'tests' / 'support'}"
    options = ("--device", "cpu", "--steps", "1", "--folder", str(tmp_path))
    done = measure(tools, *options, PYTHONPATH=places, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("gpu-*.md")
    assert f"Written: {written}\n" in done.stdout
    text = written.read_text()
    parts = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert parts.keys() == ROWS.keys()
    for heading, row in ROWS.items():
        assert re.search(rf"^\| {row}", parts[heading], re.MULTILINE), parts[heading]
        assert parts[heading].strip() in done.stdout
    assert re.findall("not measured: (.*?) \\|", text) == ["torch.nn.attention.varlen is for CUDA alone"]
    assert "| gpu_watts | not told |" in text
    assert "too far" not in text
