from __future__ import annotations

import pytest

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
