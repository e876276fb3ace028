"""Finds experiments by their folders: a new one is a folder in `PACKAGE`, and nothing else has to name it.

<name>/config.py        its settings; what makes the folder an experiment
<name>/checks.py        subject(settings), for `trainlab check <name>`; optional, as are:
<name>/export.py        recipe(folder), for `trainlab export-model` of its runs
<name>/datasets.toml    data sets for `trainlab data`
<name>/commands.py      app, a typer.Typer whose commands become the tool's
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

PACKAGE = "experiments"
EXPORT = "export.py"  # of an experiment whose runs can be exported


def with_file(file: str) -> dict[str, Path]:
    """Find the experiments that have a file.

    Args:
        file: Its name, such as "checks.py".

    Returns:
        The file's path by the experiment's name, sorted. Nothing of an experiment is imported.
    """
    try:
        places = list(import_module(PACKAGE).__path__)
    except ModuleNotFoundError:  # the tool is installed without experiments
        return {}
    folders = [folder for place in places for folder in Path(place).glob("*/") if folder.name.isidentifier()]
    return {
        folder.name: folder / file
        for folder in sorted(folders, key=lambda folder: folder.name)
        if (folder / "config.py").is_file() and (folder / file).is_file()
    }


def load(name: str, module: str) -> ModuleType:
    """Import a module of an experiment, such as `load("news", "checks")`."""
    return import_module(f"{PACKAGE}.{name}.{module}")
