"""`python -m trainlab.sweeps.weighing`: weighs the settings of trials that stand on standard input, as JSON.

A process of its own: pandas and scikit-learn take 200 MiB, which whoever leads a sweep for hours must not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from trainlab.cleaning import printable
from trainlab.errors import UserError
from trainlab.runs.compare import differences, importance
from trainlab.runs.display import Column, short, table_text
from trainlab.runs.listing import Row


def weigh(told: dict[str, Any]) -> str:
    """Return, as text, what sets the best trials apart from the others, and how much each setting matters.

    Args:
        told: goal, mode, best (how many), trials (each settings and value).
    """
    metric = told["goal"]
    rows = [
        Row(
            Path(str(number)),
            "",
            str(number),
            "finished",
            config=each["settings"],
            last={metric: each["value"]},
            best={metric: each["value"]},
            directions={metric: told["mode"]},
        )
        for number, each in enumerate(told["trials"])
    ]
    parts = []
    if len(rows) >= 2 * told["best"] and len(apart := differences.table(rows, metric, told["best"])):
        rest = len(rows) - told["best"]
        parts.append(
            f"What sets the best {told['best']} apart from the other {rest} (0: alike, 1: nothing in common)"
        )
        parts.append(_text([(str(name), list(apart[name])) for name in apart]))
    if reason := importance.missing(rows, metric):
        parts.append(reason)
    else:
        found = importance.table(rows, metric)
        between = [f"{low:.2f} to {high:.2f}" for low, high in zip(found["low"], found["high"], strict=True)]
        parts.append("How much each setting matters (share of the variance of ranks; 95 % of resamples)")
        shares = [f"{each:.2f}" for each in found["importance"]]
        parts.append(
            _text([("setting", list(found["setting"])), ("importance", shares), ("between", between)])
        )
    return "\n".join(parts)


def _text(named: list[tuple[str, list[Any]]]) -> str:
    return str(
        table_text([Column(name, [printable(short(each)) for each in cells]) for name, cells in named])
    )


if __name__ == "__main__":
    try:
        print(weigh(json.load(sys.stdin)))
    except UserError as error:
        sys.exit(str(error))
