"""What somebody orders, in words or in a file, and the sweep that is made of it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from trainlab import literals, untrusted
from trainlab.cleaning import printable
from trainlab.config import SettingsError
from trainlab.errors import UserError, nearest, some
from trainlab.headless import finding
from trainlab.headless.parameters import module_file
from trainlab.run import metrics, naming
from trainlab.sweeps import checking, space
from trainlab.sweeps.definition import LONGEST_NAME, Definition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainlab.sweeps.checking import Checked
    from trainlab.sweeps.space import Space

TRIALS = 20  # where a space without an end doesn't say how many
LARGEST = 1 << 20  # bytes of a file that describes a sweep
KEYS = ("notebook", "goal", "mode", "method", "trials", "prune", "seed", "seeds", "fixed", "space")
OPTIONS = ("goal", "mode", "method", "trials", "prune", "seed", "seeds")
NUMBERS = {"trials", "seed", "seeds"}  # among these


@dataclass(frozen=True)
class Order:
    """A sweep as it is asked for; what is None is chosen by `define`.

    Attributes:
        program: A notebook or script, a module's name, or `module:function`.
        space: What varies.
        fixed: What all trials share.
        module: Whether `program` is a module's name.
        arguments: A script's further arguments.
        options: Those of OPTIONS that were said.
        name: Of the sweep.
        at: The address of its database.
        working_folder: Where trials begin and a module is looked for, if not here.
    """

    program: str
    space: Space = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    module: bool = False
    arguments: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    at: str | None = None
    working_folder: str = ""

    def told(self, words: Sequence[str], options: Mapping[str, Any], **others: Any) -> Order:
        """Return the order with what the command line says, which wins; `others` are attributes."""
        varied, fixed = space.parse(words)
        given = varied.keys() | fixed.keys()
        return replace(
            self,
            space={key: each for key, each in self.space.items() if key not in given} | varied,
            fixed={key: each for key, each in self.fixed.items() if key not in given} | fixed,
            options={**self.options, **options},
            **others,
        )


def from_file(path: Path) -> Order:
    """Return the sweep that a TOML file describes; raise UserError for a file that can't be read or meant."""
    try:
        table = tomllib.loads(untrusted.content(path.resolve(), LARGEST).decode())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no TOML: {printable(str(error))}.") from None
    for key in table:
        if key not in KEYS:
            raise UserError(
                f"{path}: a sweep has no {printable(key)!r}.{nearest(key, KEYS)} Known: {', '.join(KEYS)}."
            )
    program = table.get("notebook")
    if not isinstance(program, str) or not program:
        raise UserError(f'{path}: notebook says what is to be trained, such as notebook = "news".')
    for key in ("fixed", "space"):
        if not isinstance(table.get(key, {}), dict):
            raise UserError(f"{path}: {key} is a table, such as [{key}] with lines of its own.")
    beside = path.resolve().parent / program
    fixed = {}
    for key, value in table.get("fixed", {}).items():
        space.check_key(key)
        if key in table.get("space", {}):
            raise UserError(
                f"{path}: {printable(key)} stands under fixed and under space. Leave one of them out."
            )
        try:
            fixed[key] = space.text(value)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: fixed.{printable(key)}: {error}.") from None
    function = finding.is_function(program)
    near = function and module_file(program.partition(":")[0], [str(beside.parent)])
    return Order(
        str(beside) if beside.is_file() else program,
        space.from_table(table.get("space", {})),
        fixed,
        module=function,
        working_folder=str(beside.parent) if near else "",
        options={key: table[key] for key in OPTIONS if key in table},
    )


def from_form(program: str, values: Mapping[str, str], options: Mapping[str, str], **others: Any) -> Order:
    """Return the sweep that the fields of a form describe.

    Args:
        program: A notebook or script.
        values: What stands in the field of each setting, as the command line has it behind `=`.
        options: Those of OPTIONS that were said, as texts.
        others: Attributes of the order.

    Raises:
        SettingsError: For each setting, and each option as `--seeds`, that can't be read.
    """
    faults, read = [], dict[str, Any](options)
    for name, value in values.items():
        try:
            space.parse([f"{name}={value}"])
        except UserError as error:
            faults.append((name, str(error)))
    for name in options.keys() & NUMBERS:
        if re.fullmatch(r"[0-9]{1,9}", options[name]):
            read[name] = int(options[name])
        else:
            faults.append((f"--{name}", f"{options[name][:20]}: expected a whole number."))
    if faults:
        raise SettingsError(faults)
    return Order(program).told([f"{name}={value}" for name, value in values.items()], read, **others)


def define(order: Order, logs: Path | None = None) -> tuple[Definition, list[str]]:
    """Check an order, and choose what it leaves open.

    Args:
        order: What is asked for.
        logs: The folder of runs; by default `logs/`.

    Returns:
        The sweep, and sentences on what was chosen for it or looks odd.

    Raises:
        UserError: It can't be, and nothing was made yet.
    """
    if not order.space:
        raise UserError(
            "Nothing varies. Give a list, such as margin=1,3,5, or a range, such as "
            "learning_rate=1e-5..1e-3:log."
        )
    program = order.program if order.module else str(finding.find_program(order.program))
    named = {"program": program, "module": order.module}
    sound = {"goal": "", "mode": "min", "method": "grid", "trials": 1, **order.options}
    _definition(name="sound", space={}, **named, **sound)  # each option by itself
    seeds, seed = sound.get("seeds", 1), sound.get("seed", 0)
    finding.check_arguments(order.arguments)
    if "resume" in order.fixed or "resume" in order.space:
        raise UserError("resume: a trial is a new run. To go on with a sweep: trainlab sweep --resume NAME")
    own = {"seed": str(seed)} if seeds > 1 else {}
    if own and ("seed" in order.fixed or "seed" in order.space):
        raise UserError(
            f"--seeds {seeds} sets the setting seed, which is given too. Leave one of the two out; the first "
            "seed is --seed."
        )
    folder = order.working_folder or str(Path.cwd())
    found = checking.check(
        program, order.space, {**order.fixed, **own}, module=order.module, logs=logs, folder=folder
    )
    remarks = [] if found.known else [_unknown(program)]
    method, trials = _extent(found.space, order.options, remarks)
    mode = _mode(order, found, remarks)
    stem = order.program.rpartition(":")[2] if order.module else Path(program).stem
    time = datetime.now().astimezone().strftime("%m%d-%H%M%S")
    return (
        _definition(
            name=order.name or f"{naming.slug(stem)[: LONGEST_NAME - len(time) - 1]}-{time}",
            arguments=list(order.arguments),
            working_folder=folder,
            mode=mode,
            method=method,
            trials=trials,
            fixed={key: value for key, value in found.fixed.items() if key not in own},
            space=space.to_table(found.space),
            at=order.at,
            **named,
            **{key: order.options[key] for key in ("goal", "prune", "seed", "seeds") if key in order.options},
        ),
        remarks,
    )


def check_same(definition: Definition, order: Order) -> None:
    """Raise UserError where a sweep that goes on is told something else than when it was made."""
    varied = space.to_table(order.space)
    program = order.program
    if program and not definition.module:
        program = str(finding.find_program(program))
    different = [order.program] if program not in ("", definition.program) else []
    different += ["-m"] if order.module and not definition.module else []
    different += [
        key
        for key in varied.keys() | order.fixed.keys()
        if not _alike(varied.get(key), definition.space.get(key))
        or order.fixed.get(key) != definition.fixed.get(key)
    ]
    different += [key for key, value in order.options.items() if getattr(definition, key) != value]
    if different:
        raise UserError(
            f"{', '.join(sorted(different))}: the sweep {definition.name} was made with something else, and "
            "its trials can only be compared if that stays. Leave it out, or start a new sweep."
        )


def _alike(given: Any, kept: Any) -> bool:
    """Tell whether a part of a space is the one that was checked: types are the program's there."""

    def plain(each: Any) -> Any:
        if isinstance(each, list):
            return [plain(value) for value in each]
        if isinstance(each, dict):
            return {key: plain(value) for key, value in each.items()}
        return literals.read(each) if isinstance(each, str) else each

    return bool(plain(given) == plain(kept))


def _definition(**fields: Any) -> Definition:
    try:
        return Definition(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
        given = str(first["input"])
        given = repr(given) if first["type"] == "int_type" and given.isdecimal() else given  # "3" of a file
        said = "" if name in ("name", "at") else f" {printable(given)[:100]}"
        raise UserError(f"--{name}{said}: {reason}.") from None


def _unknown(program: str) -> str:
    return (
        f"{Path(program).name} reads its arguments itself: its settings can't be checked before it starts, "
        "and numbers are taken as Python reads them."
    )


def _extent(varied: Space, options: Mapping[str, Any], remarks: list[str]) -> tuple[str, int]:
    """Return the method and the number of trials."""
    grid = space.combinations(varied) if options.get("method") in (None, "grid") else None
    method = options.get("method") or ("tpe" if grid is None else "grid")
    trials = options.get("trials")
    if method != "grid":
        if trials is None:
            remarks.append(f"--trials is not given: {TRIALS} trials.")
        return method, trials or TRIALS
    if grid is None:
        ranges = [key for key, each in varied.items() if isinstance(each, space.Range)]
        raise UserError(
            f"--method grid takes lists alone, and {', '.join(ranges)} is a range. Write it as a list, or "
            "choose --method tpe or random."
        )
    if trials not in (None, len(grid)):
        raise UserError(
            f"--trials {trials}: the grid has {len(grid):,} combinations. Leave --trials out, or let some be "
            "drawn: --method random, or tpe."
        )
    return method, len(grid)


def _mode(order: Order, found: Checked, remarks: list[str]) -> str:
    """Return whether less or more of the goal is better, as said, as runs say, or as its name says."""
    goal, mode = order.options.get("goal"), order.options.get("mode")
    logged = [tag for tag in found.tags if not tag.startswith(metrics.VITALS)]
    if not goal:
        known = f" Earlier runs have logged: {some(logged)}." if logged else ""
        raise UserError(f"Which metric is the goal? Say it, such as --goal val/loss.{known}")
    odd = ""
    if logged and goal not in found.tags:
        odd = f"no earlier run of {Path(order.program).stem} has logged {goal!r}.{nearest(goal, logged)}"
        remarks.append(f"warning: {odd}")
    way = mode or found.directions.get(goal) or metrics.well_known(goal)
    if way is None:
        raise UserError(
            f"--goal {goal}: nothing says whether less or more of it is better. Say it: --mode min, or "
            "--mode max." + (f" But {odd}" if odd else "")
        )
    return way
