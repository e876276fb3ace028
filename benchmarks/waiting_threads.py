"""Seconds a training step of MiniLM takes on the CPU, by what waiting OpenMP threads do.

`benchmarks/waiting_threads.py` runs each policy alone and two of a kind side by side, in turn, and writes the
medians to benchmarks/waiting_threads.md. It is why both engines set OMP_WAIT_POLICY=PASSIVE.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

POLICIES = ("ACTIVE", "unset", "PASSIVE")
REPEATS, WARM_UP, STEPS = 3, 2, 5
TEXTS, TOKENS = 90, 20  # a batch of 30 triplets of short titles


def main() -> None:
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(REPEATS):
        for policy in POLICIES:
            for together in (1, 2):
                seconds.setdefault((policy, together), []).extend(measure(policy, together))
    rows = [
        f"| {policy} | " + " | ".join(f"{statistics.median(seconds[policy, n]):.2f}" for n in (1, 2)) + " |"
        for policy in POLICIES
    ]
    head = [
        "# What waiting threads cost\n",
        f"Seconds a step, medians of {REPEATS}; {os.cpu_count()} cores. "
        "Made by `benchmarks/waiting_threads.py`.\n",
        "| OMP_WAIT_POLICY | one training | two side by side, each |",
        "| --- | ---: | ---: |",
    ]
    table = "\n".join(head + rows) + "\n"
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


def measure(policy: str, together: int) -> list[float]:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if policy == "unset" else {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, __file__, "step"]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(together)
    ]
    return [float(process.communicate()[0]) for process in started]


def step_seconds() -> float:
    import torch

    from experiments.news.config import NewsConfig
    from experiments.news.model import NewsModel

    backbone = NewsModel.pretrained(NewsConfig()).backbone.train()
    optimizer = torch.optim.AdamW(backbone.parameters(), 5e-5)
    ids = torch.randint(1000, 20000, (TEXTS, TOKENS))
    for number in range(WARM_UP + STEPS):
        if number == WARM_UP:
            start = time.perf_counter()
        backbone(
            input_ids=ids, attention_mask=torch.ones_like(ids)
        ).last_hidden_state.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - start) / STEPS


if __name__ == "__main__":
    if sys.argv[1:] == ["step"]:
        print(step_seconds())
    else:
        main()
