"""Where a program lies that somebody names, what its runs are called, and whether it takes settings."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import origin, paths, secrets
from trainlab.cleaning import printable
from trainlab.config import no_secret
from trainlab.errors import UserError, nearest
from trainlab.headless.parameters import NAMED, module_file
from trainlab.run import record, stopping

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SCRIPT = ".py"
# what a script that looks at its arguments has in its text, whichever library does it
_READS_ARGUMENTS = re.compile(
    r"\b(sys\.argv|argv|\w*argparse|\w*ArgumentParser|parse_args|from_command_line|click|typer|fire|hydra|absl"
    r"|tyro|docopt|\w*CLI)\b"
)


def find_program(reference: str) -> Path:
    """Return the path of a notebook or script: a path, or a name under `notebooks/`, `.ipynb` or not.

    Raises:
        UserError: There is none; it names the nearest.
    """
    for candidate in (Path(reference), paths.notebooks() / reference):
        for path in (candidate, candidate.with_name(f"{candidate.name}.ipynb")):
            if path.is_file():
                return path.resolve()
    if lost := paths.not_seen_here([reference]):
        raise UserError(f"no notebook {reference!r}.{lost}")
    known = sorted(path.stem for path in paths.notebooks().glob("*.ipynb"))
    raise UserError(
        f"no notebook or script {reference!r}, neither here nor in {paths.notebooks()}."
        f"{nearest(reference, known)} There: {', '.join(known) or 'none'}."
    )


def below_notebooks() -> dict[str, Path]:
    """Return the notebooks and scripts below notebooks/ by their paths in there; no links that lead out."""
    place = paths.notebooks().resolve()
    found: dict[str, Path] = {}
    for folder, below, names in os.walk(place):
        below[:] = sorted(each for each in below if not each.startswith((".", "__")))
        for path in (Path(folder, name) for name in sorted(names) if not name.startswith(".")):
            if path.suffix in (".ipynb", SCRIPT) and path.resolve().is_relative_to(place):
                found[path.relative_to(place).as_posix()] = path
    return found


def named_below(name: str) -> Path:
    """Return the notebook or script of a name below notebooks/, and no other; raise UserError elsewhere."""
    found = below_notebooks()
    if path := found.get(name) or found.get(f"{name}.ipynb"):
        return path
    raise UserError(
        f"There is no notebook or script {printable(name[:200])!r} in {paths.notebooks()}."
        f"{nearest(name[:200], found)} From elsewhere they are started by the command line."
    )


def name_of(run: Path) -> str:
    """Return the name below notebooks/ of the program that a run is of; raise UserError where it has none."""
    noted = record.read(run).model_dump()
    path = Path(str(noted.get("notebook") or noted.get("script") or ""))
    name = next((name for name, each in below_notebooks().items() if each == path.resolve()), "")
    if not name or noted.get("module"):
        said = stopping.outcome(run)
        raise UserError(
            f"{run.name} is of no notebook or script in {paths.notebooks()}, and the board starts no others; "
            f"the command line does. {said[0].upper()}{said[1:]}"
        )
    return name


def is_function(reference: str) -> bool:
    """Tell whether a program is named as `module:function`."""
    return bool(NAMED.fullmatch(reference)) and not Path(reference).exists()


def find_module(name: str) -> Path:
    """Return the file that `python -m` would execute, from here, or that `module:function` lies in.

    Nothing is imported for it.
    """
    places = [str(Path.cwd()), *sys.path]
    if is_function(name):
        file = module_file(name.partition(":")[0], [*places, str(paths.notebooks())])
        if file is None:
            raise UserError(f"no module for {name!r}, neither in {Path.cwd()} nor in {paths.notebooks()}.")
        return file
    file = module_file(name, places)
    if file is not None and file.name == "__init__.py":
        file = module_file(f"{name}.__main__", places)
    if file is None:
        raise UserError(f"no module {name!r} to execute, from {Path.cwd()}: try python -m {name}")
    return file


def experiments_of(file: str, sources: Iterable[str], values: Mapping[str, Any]) -> list[str]:
    """Return the names that the runs of a file lie under: what its code says, and the file's."""
    return list(dict.fromkeys(filter(None, [origin.experiment(sources, values), file])))


def check_arguments(behind: Sequence[str]) -> None:
    """Raise UserError where a script's own arguments hold a secret: they would stand in its run's record."""
    for number, word in enumerate(behind):
        option, equals, value = word.partition("=")
        given = value if equals else "".join(behind[number + 1 : number + 2])
        if option.startswith("-") and secrets.is_secret(option.lstrip("-"), given):
            raise UserError(no_secret(option.lstrip("-")))


def check_reads_arguments(path: Path, source: str, values: Mapping[str, str]) -> None:
    """Raise UserError where a script that is told settings never looks at its arguments."""
    if values and not _READS_ARGUMENTS.search(source):
        arguments = " ".join(f"--{key}={value}" for key, value in values.items())
        raise UserError(
            f"{path.name} does not look at its arguments, so {', '.join(values)} cannot be set. Let it: "
            "`Settings.from_command_line()` of a trainlab.config.Config, or argparse. If it does, out of "
            f"sight, name them behind `--`: trainlab run {path.name} -- {arguments}"
        )
