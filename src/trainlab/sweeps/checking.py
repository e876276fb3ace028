"""The check of a space through its program's own settings, before anything starts.

It is done in a process of its own: settings may import torch and whatever else they are checked with, and
the process that leads a sweep for days is to stay small.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import paths
from trainlab.errors import UserError
from trainlab.sweeps.space import Choice, Range, Space, from_table, points, text, to_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.headless.programs import Program, Texts

MOST = 4096  # combinations that are all checked; where there are more, each value is checked by itself
ENDS = 2  # of a range: the first of its `points`


@dataclass(frozen=True)
class Checked:
    """A space with its program's own types, and what earlier runs of that program tell.

    Attributes:
        space: What varies.
        fixed: What all trials share; paths are absolute where the program takes them for paths.
        known: Whether the program tells its types; elsewhere numbers are taken as Python reads them.
        tags: What earlier runs of it have logged.
        directions: Which way these improve, where a run or a table says so.
    """

    space: Space
    fixed: Texts
    known: bool
    tags: list[str]
    directions: dict[str, str]


def check(  # noqa: PLR0913
    program: str,
    space: Space,
    fixed: Mapping[str, str],
    *,
    module: bool = False,
    logs: Path | None = None,
    folder: str | None = None,
) -> Checked:
    """Check every choice, both ends of each range, and their combinations, of which there may be many.

    Args:
        program: A notebook, a script, a module's name or `module:function`.
        space: What varies.
        fixed: What all trials share.
        module: Whether `program` is one of the last two.
        logs: The folder of earlier runs; by default `logs/`.
        folder: Where trials begin; by default here.

    Raises:
        UserError: A setting that the program doesn't have, a value that it can't take, or values that it
            can't take together.
    """
    order = {
        "program": program,
        "space": to_table(space),
        "fixed": dict(fixed),
        "module": module,
        "logs": str((logs or paths.logs()).absolute()),
    }
    answer, write_end = os.pipe()  # standard output may be printed on by what is imported
    with subprocess.Popen(
        [sys.executable, "-m", "trainlab.sweeps.checking", str(write_end)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[write_end],
        cwd=folder,
        start_new_session=True,  # Ctrl-C is for this process, which ends that one
    ) as child:
        os.close(write_end)
        assert child.stdin is not None, "a pipe"
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended already: its exit code tells
                child.stdin.write(json.dumps(order).encode())
                child.stdin.close()
            with os.fdopen(answer, encoding="utf-8") as pipe:
                said = pipe.read()
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    if not said:
        raise UserError(
            f"The settings of {program} can't be read: their check ended with exit code {child.returncode}, "
            "and what it printed stands above."
        )
    told = json.loads(said)
    if "error" in told:
        raise UserError(told["error"])
    return Checked(**told | {"space": from_table(told["space"])})


def main(write_end: int) -> None:
    """Check what standard input says, and write what came out into a pipe."""
    from trainlab.headless import programs

    order = json.load(sys.stdin)
    answer: dict[str, Any] = {}
    try:
        space = from_table(order["space"])
        first = order["fixed"] | {key: text(next(points(each))) for key, each in space.items()}
        program = programs.find(order["program"], first, module=order["module"])
        typed, fixed = checked(program, space, order["fixed"])
        answer = {"space": to_table(typed), "fixed": fixed, "known": program.known}
        answer |= _past(program.experiments, Path(order["logs"]))
    except UserError as error:
        answer = {"error": str(error)}
    with contextlib.suppress(BrokenPipeError), os.fdopen(write_end, "w", encoding="utf-8") as pipe:
        json.dump(answer, pipe)


def checked(program: Program, space: Space, fixed: Texts) -> tuple[Space, Texts]:
    """Return space and fixed settings as the program has them; raises what `check` does."""
    first = fixed | {key: text(next(points(each))) for key, each in space.items()}
    found = _read(program, space, first, whole=True)
    if program.known:  # a path is made absolute: a trial may start in another folder
        fixed = {key: value if isinstance(value := found[key], str) else fixed[key] for key in fixed}
    typed: Space = {}
    for key, each in space.items():
        values = []
        for place, point in enumerate(points(each)):
            whole = isinstance(each, Choice) or place < ENDS
            values.append(_read(program, space, first | {key: text(point)}, whole)[key])
        if isinstance(each, Choice):
            typed[key] = _typed_choice(key, each, values)
        else:
            typed[key] = _typed_range(key, each, values)
    ends = [list(points(each, most=0)) for each in space.values()]
    if math.prod(map(len, ends)) <= MOST:
        for corner in itertools.product(*ends):
            together = {key: text(value) for key, value in zip(space, corner, strict=True)}
            _read(program, space, fixed | together, whole=False)
    return typed, fixed


def _past(experiments: list[str], logs: Path) -> dict[str, Any]:
    """Return what earlier runs have logged, and which way each improves."""
    from trainlab.runs import listing, ranking

    rows = [each for each in listing.rows(logs) if each.experiment in experiments] if logs.is_dir() else []
    tags = sorted({tag for row in rows for tag in row.last})
    ways = {tag: ranking.direction([row for row in rows if tag in row.last], tag) for tag in tags}
    return {"tags": tags, "directions": {tag: way for tag, way in ways.items() if way}}


def _read(program: Program, space: Space, texts: Texts, whole: bool) -> Mapping[str, Any]:
    try:
        return program.read(texts, whole)
    except UserError as error:
        said = str(error)
        if any(said.startswith((f"{key}=", f"{key}:")) for key in texts):
            raise
        raise UserError(f"with {' '.join(f'{key}={texts[key]}' for key in space)}: {said}") from None


def _typed_choice(key: str, each: Choice, read: list[Any]) -> Choice:
    """Return the choice's values as the program has them where JSON can hold them, as they were elsewhere."""
    plain = all(type(value) in (bool, int, float, str) for value in read)
    values = read if plain else list(each.values)
    for place, value in enumerate(values):
        if any(type(value) is type(other) and value == other for other in values[:place]):
            raise UserError(f"{key}: {text(value)} stands twice in the list, as {each.values[place]} too.")
    return Choice(tuple(values))


def _typed_range(key: str, each: Range, read: list[Any]) -> Range:
    written = f"{key}={text(each.low)}..{text(each.high)}"
    kinds = {type(value) for value in read}
    if not kinds <= {int, float}:
        kind = "text" if str in kinds else "true or false" if bool in kinds else "no number"
        raise UserError(
            f"{written}: a range is for numbers, and {key} is {kind}. Expected a list: {key}=a,b."
        )
    if kinds == {int}:
        if each.step is not None and each.step % 1:
            raise UserError(f"{written}:{each.step}: {key} is a whole number. Expected a whole step.")
        return Range(int(each.low), int(each.high), each.log, None if each.step is None else int(each.step))
    step = None if each.step is None else float(each.step)
    return Range(float(each.low), float(each.high), each.log, step)


if __name__ == "__main__":
    main(int(sys.argv[1]))
