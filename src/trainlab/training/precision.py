"""What to compute with, where `precision=auto` leaves that to a short measurement."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from trainlab.run import record

if TYPE_CHECKING:
    from trainlab.run.run import Run
    from trainlab.training.config import CommonConfig

WIDTH, WIDER = 384, 1536  # a small transformer's feed-forward layers: larger ones gain no less
TOKENS = 1024
REPEATS = 3  # after one to warm up
PAYS = 1.2  # times as fast, or half of the digits are not worth giving away
PRECISIONS = ("32-true", "bf16-mixed")


class Choice(NamedTuple):
    """A precision, and the milliseconds that layers' forward and backward pass took in each."""

    precision: str
    milliseconds: dict[str, float]

    def __str__(self) -> str:
        taken = ", ".join(f"{name} {each:.0f} ms" for name, each in self.milliseconds.items())
        return f"precision: {self.precision} (a transformer's layers: {taken})"


def precision_of(run: Run, config: CommonConfig) -> str:
    """Return the precision to train with; `auto` becomes what is faster here, and is said.

    A run that goes on keeps what was chosen when it started, wherever that was.
    """
    if config.precision != "auto":
        return config.precision
    folder = run.folder
    known = record.read(folder).model_extra or {} if (folder / record.FILE).is_file() else {}
    if "precision" in known:
        return str(known["precision"])
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return PRECISIONS[0]  # each process would measure by itself, and come to its own choice
    choice = choose_precision("cpu" if config.on_cpu() else "cuda")
    print(choice, flush=True)
    if not config.fast_dev_run:
        run.update(precision=choice.precision)
    return choice.precision


def choose_precision(device: str) -> Choice:
    """Choose between single precision and bfloat16 by what takes less time on this device; half a second."""
    with torch.random.fork_rng(devices=[]):  # a run that goes on measures nothing, and draws the same numbers
        layers = nn.Sequential(nn.Linear(WIDTH, WIDER), nn.GELU(), nn.Linear(WIDER, WIDTH)).to(device)
    states = torch.ones(TOKENS, WIDTH, device=device)
    rounds = [[1000 * _seconds(layers, states, name) for name in PRECISIONS] for _ in range(1 + REPEATS)]
    taken = dict(zip(PRECISIONS, map(statistics.median, zip(*rounds[1:], strict=True)), strict=True))
    chosen = PRECISIONS[taken["32-true"] > PAYS * taken["bf16-mixed"]]
    return Choice(chosen, taken)


def _seconds(layers: nn.Module, states: Tensor, precision: str) -> float:
    """Return how long a forward and a backward pass take."""
    wait = torch.cuda.synchronize if states.is_cuda else (lambda: None)
    wait()
    since = time.perf_counter()
    with torch.autocast(states.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = layers(states).float().mean()
    loss.backward()
    layers.zero_grad()
    wait()
    return time.perf_counter() - since
