from __future__ import annotations

from pathlib import Path

import pytest

from trainlab.headless.execution import ExitStatus
from trainlab.hosts import member


@pytest.mark.parametrize(
    "reason",
    [
        "RuntimeError: [/src/gloo/gloo/transport/tcp/pair.cc:537] Read error: Connection reset",
        "exit code 1: [rank1]: RuntimeError: [/src/gloo/transport/tcp/pair.cc:537] Connection closed by peer",
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp",
        "DistNetworkError: The client socket has timed out after 60000ms",
        "RuntimeError: Broken pipe",
    ],
)
def test_what_the_loss_of_another_process_raises_is_known(reason: str) -> None:
    assert member._LOST.search(reason)


@pytest.mark.parametrize(
    "reason",
    [
        "ValueError: seven",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x4 and 3x4)",
        "out of memory: the kernel was killed at the memory limit of 8.0 GiB; take a smaller batch",
        "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.",
        "BrokenPipeError: [Errno 32] Broken pipe",
        "exit code 3: my own words on gloomy weather",
    ],
)
def test_a_failure_of_the_code_s_own_is_none(reason: str) -> None:
    assert not member._LOST.search(reason)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("", ["train.py", "--x=1"]),
        ("own.train", ["-m", "own.train", "--x=1"]),
        ("own:train", ["-m", "trainlab.headless.function", "own:train", "--x=1"]),
    ],
)
def test_a_script_a_module_and_a_function_are_executed_as_on_one_host(
    module: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def run_script(_folder: Path, _screen: object, given: list[str], _place: str) -> ExitStatus:
        seen.append(given)
        return ExitStatus("finished", None, 0)

    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "GROUP_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(member, "_end_with", lambda agent: None)
    monkeypatch.setattr(member, "run_script", run_script)
    assert member.main(tmp_path, tmp_path, "127.0.0.1:1", Path("train.py"), module, ["--x=1"]) == 0
    assert seen == [words]
