"""Sweeps and their trials for the tests of what is shown of them."""

from __future__ import annotations

from trainlab.sweeps.definition import Definition
from trainlab.sweeps.queue import Owner, Trial

SPACE = {
    "margin": [1, 3, 5],
    "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "head_learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "mining": ["hard", "semihard"],
}
STEER = "\x1b[2J\x1b]0;title\x07[bold red]x[/] \u202e"


def definition(**fields):
    known = {
        "name": "margins",
        "program": "/nowhere/news.ipynb",
        "goal": "val/loss",
        "mode": "min",
        "method": "tpe",
        "trials": 40,
        "space": SPACE,
    }
    return Definition(**known | fields)


def owner(host="box", slot="cpu 0", **fields):
    return Owner(**{"host": host, "pid": 1, "started": 1.0, "slot": slot, "token": "t"} | fields)


def trial(number, state="finished", value=None, **fields):
    """Return a trial with settings, the owner and the run that its state would have."""
    begun = state != "waiting"
    settings = {
        "margin": 1 + 2 * (number % 3),
        "learning_rate": 1e-5 * (1 + number),
        "head_learning_rate": 1e-4 * (1 + number),
        "mining": "hard" if number % 2 else "semihard",
    }
    if value is None and state == "finished":
        value = 1.0 + number
    known = {
        "settings": settings if begun else {},
        "owner": owner(slot=f"cpu {number % 2}") if begun else None,
        "runs": (f"news/margins-{number:04d}",) if begun else (),
        "attempts": int(begun),
        "value": value,
        "reason": "",
        "beat": "1" if begun else None,
    }
    return Trial(number, state, **known | fields)


def forty():
    """Return forty trials of a sweep that is on its way: of each state some."""
    ended = [trial(each, "finished") for each in range(20)]
    ended += [
        trial(each, "pruned", reason="pruned at validation 3: worse than the median")
        for each in range(20, 26)
    ]
    ended += [trial(26, "failed", reason="failed: out of memory (limit 4.0 GiB)")]
    running = [trial(each, "running") for each in (27, 28)]
    return [*ended, *running, *(trial(each, "waiting") for each in range(29, 40))]
