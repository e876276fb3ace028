"""Notebook files: read, filled with parameters, written."""

from __future__ import annotations

import itertools
import shlex
import sys
from typing import TYPE_CHECKING, Any

# nbformat's validator compiles, where this package is there, a grammar of internationalised addresses, which
# no notebook holds; that takes two seconds, and a headless run would wait for them twice.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat  # noqa: E402

from trainlab import files, literals  # noqa: E402
from trainlab.errors import UserError  # noqa: E402
from trainlab.headless import notebook_format  # noqa: E402
from trainlab.run import record  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from nbformat import NotebookNode

FILE = "notebook.ipynb"  # the executed copy in a run's folder
INJECTED = "injected-parameters"  # papermill's tag


def read(path: Path) -> NotebookNode:
    """Return a Python notebook of format 4 without what its last execution left in it.

    Raises UserError where the file is no notebook that can run; it names the copy that Jupyter left if it was
    killed while saving.
    """
    try:
        notebook, language = notebook_format.parse(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from None
    except (ValueError, nbformat.ValidationError) as error:
        told = f"{path} is not a notebook: {str(error).splitlines()[0][:200].rstrip('.')}."
        if command := way_back(path):
            told += f" Saving it was cut off; the copy from before lies beside it. Take that back: {command}"
        raise UserError(told) from None
    if language != "python":
        raise UserError(f"{path} is a notebook in {language}; trainlab runs those in Python.")
    return notebook


def way_back(path: Path) -> str:
    """Return the command that puts back the copy from before a save that was cut off, '' without one."""
    before = path.with_name(f".~{path.name}")  # Jupyter's: it is there for as long as the new one is written
    try:
        read(before)
    except UserError:
        return ""
    return f"mv {shlex.quote(str(before))} {shlex.quote(str(path))}"


def filled(notebook: NotebookNode, values: dict[str, Any]) -> NotebookNode:
    """Return the notebook with a cell that sets `values` behind its own defaults.

    papermill finds the place; what it writes there is JSON's kinds of value alone.
    """
    from papermill.parameterize import parameterize_notebook

    if not values:
        return notebook
    notebook.metadata.setdefault("papermill", {})  # papermill counts on both
    for cell in notebook.cells:
        cell.metadata.setdefault("tags", [])
    lines = ["# Parameters", *(f"{name} = {literals.written(value)}" for name, value in values.items())]
    noted = record.plain(values)  # papermill keeps them in the notebook's metadata, which are JSON
    notebook = parameterize_notebook(notebook, noted, kernel_name="python3", language="python")
    next(cell for cell in notebook.cells if INJECTED in cell.metadata.tags).source = "\n".join(lines)
    return notebook


def filled_with(folder: Path) -> str:
    """Return the cell that a run's notebook was filled with, '' where there is none."""
    try:
        cells = read(folder / FILE).cells
    except UserError:
        return ""
    return "\n".join(cell.source for cell in cells if INJECTED in cell.metadata.get("tags", []))


def put_aside(folder: Path) -> None:
    """Keep the notebook that a run has executed so far, as notebook-1.ipynb, -2 and so on."""
    path = folder / FILE
    if path.exists():
        names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
        path.rename(next(name for name in names if not name.exists()))


def write(folder: Path, notebook: NotebookNode, unless: bytes = b"") -> bytes:
    """Write the notebook into a run's folder in one step, `unless` it is those bytes; return its bytes."""
    content = nbformat.writes(notebook).encode(errors="replace")
    if content != unless:
        files.write(folder / FILE, content)
    return content
