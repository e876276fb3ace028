"""A sweep as text: its table, what it found, and all sweeps side by side; `board` shows one as it goes on.

Nothing here reads a study: trials, definitions and curves are handed in. Whatever runs have written is made
printable, and never read as markup.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import cleaning, paths
from trainlab.cleaning import printable
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.run.metrics import is_finite
from trainlab.runs.display import Column, cut, duration, short, step_seconds, table_text
from trainlab.sweeps import pruning
from trainlab.sweeps.trial import seed_named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.queue import State, Trial

    Curves = Callable[[Trial], Sequence[Sequence[float]]]
    Remaining = Callable[[Trial], float | None]

STATES: tuple[State, ...] = ("running", "finished", "pruned", "failed", "waiting")
ENDED: tuple[State, ...] = ("finished", "pruned", "failed")
MOST_ROWS = 40  # that `show` prints: more are for a sheet or a program
_GAP = 2  # spaces between columns
_LONGEST_REASON = 300  # characters
_LONGEST_SETTING = 32  # characters of a setting's value
_TIGHT = 8  # characters that a setting's title keeps, where the table must fit
_WHY = "progress or reason"
_LEAST_REASON = 16  # characters: less of a reason tells nothing
_SETTINGS = 3.0  # rank of the first setting among the columns; those of the others lie below 4


def no_curves(trial: Trial) -> Sequence[Sequence[float]]:  # noqa: ARG001
    """Return no curve: for whoever knows the trials alone."""
    return ()


def curves_of(curves: Curves, trial: Trial) -> Sequence[Sequence[float]]:
    """Return the curves of a trial; none where its runs were deleted meanwhile, or can't be read."""
    with suppress(OSError):
        return curves(trial)
    return ()


def ordered(definition: Definition, trials: Iterable[Trial]) -> list[Trial]:
    """Return the running trials, the finished, the best first, then those pruned, failed and waiting."""
    sign = 1 if definition.mode == "min" else -1

    def place(trial: Trial) -> tuple[int, float, int]:
        value = trial.value if trial.state == "finished" else None
        rank = sign * value if value is not None and is_finite(value) else math.inf
        return STATES.index(trial.state), rank, trial.number

    return sorted(trials, key=place)


def ranked(definition: Definition, trials: Iterable[Trial]) -> list[Trial]:
    """Return the finished trials that have a value, the best first; also those that patience has ended."""
    counted = pruning.counted(definition.prune)
    having = [each for each in trials if each.state in counted and is_finite(each.value)]
    sign = 1 if definition.mode == "min" else -1
    return sorted(having, key=lambda each: (sign * (each.value or 0.0), each.number))


def runs_of_seeds(definition: Definition, trial: Trial) -> list[str]:
    """Return a trial's runs, of each seed the last: one before it was killed, or began anew."""
    if definition.seeds == 1:
        return list(trial.runs[-1:])
    return list({run if (seed := seed_named(run)) is None else seed: run for run in trial.runs}.values())


def counts(trials: Iterable[Trial]) -> str:
    """Return '12 of 40 done: 9 finished, 2 pruned, 1 failed; 2 running, 26 waiting'."""
    of = Counter(each.state for each in trials)
    ended = ", ".join(f"{of[state]:,} {state}" for state in ENDED if of[state])
    others = ", ".join(f"{of[state]:,} {state}" for state in ("running", "waiting") if of[state])
    done = f"{sum(of[state] for state in ENDED):,} of {of.total():,} done"
    return "; ".join(filter(None, [": ".join(filter(None, [done, ended])), others]))


def goal(definition: Definition) -> str:
    """Return 'val/loss, lower is better'."""
    better = "lower" if definition.mode == "min" else "higher"
    mean = f", mean of {definition.seeds} seeds" if definition.seeds > 1 else ""
    return printable(f"{definition.goal}{mean}, {better} is better")


def reason(definition: Definition, trial: Trial, left: float | None = None) -> str:
    """Return why a trial was pruned, failed or waits again, the seconds `left`, how often it was taken."""
    parts = [] if left is None else [f"{' '.join(duration(left).split()[:2])} left"]
    if trial.state in ("pruned", "failed", "waiting"):
        text = printable(" ".join(trial.reason.split()))
        parts.append(text.removeprefix(trial.state).lstrip(" :"))
    if trial.state == "running" and definition.seeds > 1:
        parts.append(f"seed {max(1, len(runs_of_seeds(definition, trial)))} of {definition.seeds}")
    if trial.attempts > 1:
        parts.append(f"taken {trial.attempts} times")
    return cut(", ".join(filter(None, parts)), _LONGEST_REASON)


def table(
    definition: Definition,
    trials: Sequence[Trial],
    curves: Curves = no_curves,
    remaining: Remaining | None = None,
    width: int | None = None,
) -> Text:
    """Return trials as a table, in the order given.

    Args:
        definition: The sweep.
        trials: What to show; see `ordered`.
        curves: Gives the goal's values of each run of a trial, one a validation.
        remaining: Gives the seconds that a running trial will still take, None where nobody knows.
        width: Columns of the terminal; None leaves every cell whole.

    Returns:
        The columns trial, host or slot, the settings that vary, last, best (of several seeds with their
        standard deviation), validations, state, progress or reason; where all don't fit,
        those that tell most.
    """
    values = [curves_of(curves, each) for each in trials]
    hosts = {each.owner.host for each in trials if each.owner}
    left = [remaining(each) if remaining and each.state == "running" else None for each in trials]
    names = list(definition.space)
    # each with its rank: where all don't fit, the last goes first
    shown = [
        (0.0, Column("trial", [str(each.number) for each in trials], right=True)),
        (
            8.0,
            Column("host" if len(hosts) > 1 else "slot", [_place(each, len(hosts) > 1) for each in trials]),
        ),
        *((_SETTINGS + place / len(names), _settings(name, trials)) for place, name in enumerate(names)),
        (6.0, Column("last", [short(each[-1][-1]) if each and each[-1] else "" for each in values], True)),
        (
            1.0,
            Column(
                "best", [value_text(definition, *each) for each in zip(trials, values, strict=True)], True
            ),
        ),
        (7.0, Column("validations", [str(sum(map(len, each)) or "") for each in values], right=True)),
        (0.0, Column("state", [each.state for each in trials])),
    ]
    why = [reason(definition, *each) for each in zip(trials, left, strict=True)]
    return table_text(_fitted(shown, why, width))


def value_text(definition: Definition, trial: Trial, values: Sequence[Sequence[float]] = ()) -> str:
    """Return the best of the goal that a trial has reached; of several seeds the mean and its spread."""
    choose = min if definition.mode == "min" else max
    bests = [choose(found) for each in values if (found := [value for value in each if is_finite(value)])]
    if definition.seeds == 1:
        return short(trial.value if trial.value is not None else choose(bests, default=None))
    mean = statistics.fmean(bests) if bests else None
    spread = ""
    with suppress(OverflowError):  # of numbers near the largest
        spread = f" ± {statistics.stdev(bests):.2g}" if len(bests) > 1 else ""
    return short(mean if trial.value is None else trial.value) + spread


def run_folder(run: str, logs: Path | None = None) -> Path | None:
    """Return the folder of a trial's run, 'experiment/run'; None for one that is not below `logs/`."""
    place = (logs or paths.logs()).resolve()
    with suppress(OSError, ValueError, RuntimeError):  # a NUL, links in a circle
        folder = (place / run).resolve()
        return folder if folder.is_relative_to(place) and folder != place else None
    return None


def seconds_left(definition: Definition, trial: Trial, logs: Path | None = None) -> float | None:
    """Return the seconds that a trial will still take, its seeds that come included, by its run's record."""
    folder = run_folder(trial.runs[-1], logs) if trial.runs else None
    if folder is None:
        return None
    try:
        known = record.read(folder)
    except UserError:
        return None
    pace, planned = step_seconds(known), known.planned
    if not pace or planned is None or planned.steps is None:  # no time has passed: nobody knows
        return None
    step = max(point.step for point in known.last.values())
    left = max(0, definition.seeds - len(runs_of_seeds(definition, trial)))
    return pace * (planned.steps - step + planned.steps * left)


def _fitted(shown: Sequence[tuple[float, Column]], why: list[str], width: int | None) -> list[Column]:
    """Return the columns that fit: long titles are cut first; reasons get the room that is left."""
    kept = [(rank, column) for rank, column in shown if any(column.cells)]
    if width is None:
        return [column for _, column in kept] + ([Column(_WHY, why)] if any(why) else [])

    needed = min(_LEAST_REASON, max(map(len, why), default=0)) + _GAP if any(why) else 0

    def room() -> int:
        return width + _GAP - sum(column.width + _GAP for _, column in kept)

    if room() < needed:
        tight = [max([_TIGHT, *map(len, column.cells)]) for _, column in kept]
        kept = [
            (
                rank,
                replace(column, title=cut(column.title, least))
                if _SETTINGS <= rank < _SETTINGS + 1
                else column,
            )
            for (rank, column), least in zip(kept, tight, strict=True)
        ]
    while (last := max(rank for rank, _ in kept)) and room() < (needed if last > _SETTINGS + 1 else 0):
        kept = [(rank, column) for rank, column in kept if rank != last]
    columns = [column for _, column in kept]
    if any(why) and room() >= needed:
        columns.append(Column(cut(_WHY, room() - _GAP), [cut(each, room() - _GAP) for each in why]))
    return columns


def _place(trial: Trial, host: bool) -> str:
    owner = trial.owner
    return "" if owner is None else printable(f"{owner.host} {owner.slot}" if host else owner.slot)


def _settings(name: str, trials: Sequence[Trial]) -> Column:
    values = [trial.settings.get(name) for trial in trials]
    right = any(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
    return Column(printable(name), [cut(short(each), _LONGEST_SETTING) for each in values], right)


def heading(definition: Definition, trials: Sequence[Trial]) -> str:
    """Return what stands above a sweep's table: its name, goal, method and how far it is."""
    pruned = "" if definition.prune == "none" else f", pruned by {definition.prune}"
    seeds = f", {definition.seeds} seeds each" if definition.seeds > 1 else ""
    how = f"goal {goal(definition)}; {definition.method}{seeds}{pruned}; {Path(definition.program).stem}"
    return "\n".join(map(printable, [f"{definition.name}: {counts(trials)}", how]))


def show(
    definition: Definition,
    trials: Sequence[Trial],
    curves: Curves = no_curves,
    width: int | None = None,
    logs: Path | None = None,
) -> Text:
    """Return a sweep in full: its heading and the table, of many trials those that `ordered` has first.

    Args:
        definition: The sweep.
        trials: All its trials; how many more there are than are shown is said below.
        curves: As in `table`; asked for the trials that are shown alone.
        width: As in `table`.
        logs: The folder of runs, by default `logs/`: their records say how long they will still take.
    """
    from rich.text import Text

    first = ordered(definition, trials)
    known = [each for each in first if each.state != "waiting" or each.settings]
    shown = known if len(known) <= MOST_ROWS else known[:MOST_ROWS]
    text = table(definition, shown, curves, lambda trial: seconds_left(definition, trial, logs), width)
    parts = [Text(heading(definition, trials), style="bold"), text]
    if rest := known[len(shown) :]:
        of = Counter(each.state for each in rest)
        more = ", ".join(f"{of[state]:,} {state}" for state in STATES if of[state])
        command = f"trainlab sweep show {shlex.quote(definition.name)} --format csv"
        parts.append(Text(printable(f"... and {len(rest):,} more ({more}): {command}"), style="dim"))
    return Text("\n").join(parts)


def as_json(definition: Definition, trials: Sequence[Trial]) -> str:
    """Return the sweep and all its trials as JSON; numbers that JSON has no word for are null."""
    from pydantic_core import to_jsonable_python

    known = {"sweep": definition.model_dump(), "trials": [_facts(each) for each in trials]}
    plain = to_jsonable_python(known, inf_nan_mode="null", fallback=str)
    return cleaning.json_of(plain)


def as_csv(definition: Definition, trials: Sequence[Trial]) -> str:
    """Return all trials as CSV with a header; a sheet computes none of it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(definition.space)
    facts = ("trial", "state", "value", "reason", "attempts", "runs", "host", "slot")
    writer.writerow([*facts[:3], *(cleaning.sheet(f"settings.{name}") for name in names), *facts[3:]])
    for each in trials:
        known = _facts(each)
        settings = [known["settings"].get(name) for name in names]
        row = [*(known[name] for name in facts[:3]), *settings, *(known[name] for name in facts[3:])]
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _facts(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": trial.state,
        "value": trial.value,
        "settings": trial.settings,
        "reason": trial.reason,
        "attempts": trial.attempts,
        "runs": list(trial.runs),
        "host": trial.owner.host if trial.owner else None,
        "slot": trial.owner.slot if trial.owner else None,
    }


def _cell(value: Any) -> Any:
    """Return a value as a cell of a sheet: exact where it is a number, harmless where it is text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return cleaning.sheet(value)
    return cleaning.sheet(json.dumps(value, default=str, ensure_ascii=False))
