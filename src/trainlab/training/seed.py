"""The state of all random numbers, as a checkpoint holds it."""

from __future__ import annotations

import os
import random
import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from trainlab.run import record

if TYPE_CHECKING:
    from trainlab.run.run import Run
    from trainlab.training.config import CommonConfig


def random_state() -> dict[str, Any]:
    """Return the state of Python's, NumPy's, torch's and the GPU's global generators, as plain values."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_state(saved: dict[str, Any]) -> None:
    """Go back to a state; the GPU's only where it was saved and there is one."""
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = saved["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(saved["torch"].cpu())
    if saved["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(saved["cuda"].cpu())


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
    """Return the precision to train with; `auto` becomes what is faster here, which is printed.

    A run that goes on keeps what was chosen when it started, wherever that was.
    """
    if config.precision != "auto":
        return config.precision
    folder = run.folder
    known = record.read(folder).model_extra or {} if (folder / record.FILE).is_file() else {}
    if "precision" in known:
        return str(known["precision"])
    # each process of torchrun would measure by itself, and come to its own choice; a TPU has no autocast
    if "TORCHELASTIC_RUN_ID" in os.environ or config.accelerator == "tpu":
        return PRECISIONS[0]
    choice = choose_precision(config.device)
    print(choice, flush=True)
    if not config.fast_dev_run:
        run.update(precision=choice.precision)
    return choice.precision


def choose_precision(device: str) -> Choice:
    """Choose between single precision and bfloat16 by what takes less time on this device; half a second."""
    with torch.random.fork_rng(devices=[]):  # a run that goes on measures nothing, and draws the same numbers
        layers = nn.Sequential(nn.Linear(WIDTH, WIDER), nn.GELU(), nn.Linear(WIDER, WIDTH)).to(device)
    states = torch.ones(TOKENS, WIDTH, device=device)
    wait = torch.accelerator.synchronize if states.device.type != "cpu" else (lambda: None)
    rounds: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for name in PRECISIONS * (1 + REPEATS):
        wait()
        since = time.perf_counter()
        with torch.autocast(states.device.type, torch.bfloat16, enabled=name == "bf16-mixed"):
            loss = layers(states).float().mean()
        loss.backward()
        layers.zero_grad()
        wait()
        rounds[name].append(1000 * (time.perf_counter() - since))
    taken = {name: statistics.median(each[1:]) for name, each in rounds.items()}
    return Choice(faster(taken), taken)


def faster(milliseconds: dict[str, float]) -> str:
    """Return the faster precision; half of the digits are given away where that is worth it."""
    return PRECISIONS[milliseconds["32-true"] > PAYS * milliseconds["bf16-mixed"]]
