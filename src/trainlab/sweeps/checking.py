"""The check of a space through its program's own settings, before anything starts.

It is done in a process of its own: settings may import torch and whatever else they are checked with, and
the process that leads a sweep for days is to stay small.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError
from trainlab.sweeps import programs
from trainlab.sweeps.space import Choice, Range, Space, from_table, points, text, to_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.sweeps.programs import Texts

MOST = 4096  # combinations that are all checked; where there are more, each value is checked by itself
ENDS = 2  # of a range: the first of its `points`


@dataclass(frozen=True)
class Checked:
    """A space with its program's own types, and the settings that it fixes.

    Where the program doesn't tell its types (`known` is false), numbers are taken as Python reads them.
    """

    space: Space
    fixed: Texts
    known: bool


def check(program: str, space: Space, fixed: Mapping[str, str] = {}, *, module: bool = False) -> Checked:
    """Check every choice, both ends of each range, and their combinations, of which there may be many.

    Args:
        program: A notebook, a script, or a module's name.
        space: What varies.
        fixed: What all trials share.
        module: Whether `program` is the name of a module.

    Raises:
        UserError: A setting that the program doesn't have, a value that it can't take, or values that it
            can't take together.
    """
    order = {"program": program, "space": to_table(space), "fixed": dict(fixed), "module": module}
    answer, write_end = os.pipe()  # standard output may be printed on by what is imported
    with subprocess.Popen(
        [sys.executable, "-m", "trainlab.sweeps.checking", str(write_end)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[write_end],
    ) as child:
        os.close(write_end)
        assert child.stdin is not None, "a pipe"
        child.stdin.write(json.dumps(order).encode())
        child.stdin.close()
        with os.fdopen(answer, encoding="utf-8") as pipe:
            said = pipe.read()
    if not said:
        raise UserError(
            f"The settings of {program} can't be read: their check ended with exit code {child.returncode}, "
            "and what it printed stands above."
        )
    told = json.loads(said)
    if "error" in told:
        raise UserError(told["error"])
    return Checked(from_table(told["space"]), told["fixed"], told["known"])


def main(write_end: int) -> None:
    """Check what standard input says, and write what came out into a pipe."""
    order = json.load(sys.stdin)
    try:
        space, fixed = from_table(order["space"]), order["fixed"]
        typed, known = checked(order["program"], space, fixed, module=order["module"])
        answer = {"space": to_table(typed), "fixed": fixed, "known": known}
    except UserError as error:
        answer = {"error": str(error)}
    with os.fdopen(write_end, "w", encoding="utf-8") as pipe:
        json.dump(answer, pipe)


def checked(program: str, space: Space, fixed: Texts, *, module: bool = False) -> tuple[Space, bool]:
    """Return the space with the program's types, and whether there are any; else as `check`."""
    first = fixed | {key: text(next(points(each))) for key, each in space.items()}
    reader = programs.reader(program, first, module=module)
    typed: Space = {}
    for key, each in space.items():
        read = []
        for place, point in enumerate(points(each)):
            whole = isinstance(each, Choice) or place < ENDS
            read.append(_read(reader, space, first | {key: text(point)}, whole)[key])
        typed[key] = (
            _typed_choice(key, each, read) if isinstance(each, Choice) else _typed_range(key, each, read)
        )
    ends = [list(points(each, most=0)) for each in space.values()]
    if math.prod(map(len, ends)) <= MOST:
        for values in itertools.product(*ends):
            together = {key: text(value) for key, value in zip(space, values, strict=True)}
            _read(reader, space, fixed | together, whole=False)
    return typed, reader.known


def _read(reader: programs.Reader, space: Space, texts: Texts, whole: bool) -> Mapping[str, Any]:
    try:
        return reader.read(texts, whole)
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
