"""Whose code a run is of: a script's, a notebook's, or trainlab's own; and what that code calls itself."""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType

    from nbformat import NotebookNode

OURS = Path(__file__).parent  # the folder of the package
EXAMPLES = OURS.with_name("experiments")  # called by somebody's notebook or script, as a library is
_INSTALLED = {"site-packages", "dist-packages"}  # folders of other people's packages


def of_caller() -> Path | None:
    """Return the file of the innermost code that is neither trainlab's nor installed.

    Of what was typed into a notebook it is the notebook, or its folder, and the working folder elsewhere;
    for the command `trainlab` alone it is trainlab. None where there is only other people's code.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_file() and not is_installed(file):
            return file
        if frame.f_globals.get("__name__") == "__main__" and not file.is_file():  # a cell, `python -c`
            return _typed(frame)
        frame = frame.f_back
    main = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "")
    return OURS if main.stem == "trainlab" or main.is_relative_to(OURS) else None


def sources(notebook: NotebookNode) -> Iterator[str]:
    """Yield the code cells of a notebook as Python."""
    from IPython.core.inputtransformer2 import TransformerManager

    for cell in notebook.cells:
        if cell.cell_type == "code":
            with contextlib.suppress(SyntaxError):
                yield TransformerManager().transform_cell(cell.source)


def experiment(code: Iterable[str], values: Mapping[str, Any]) -> str | None:
    """Return the experiment that the first `Run("name", ...)` in the code names, None where it can't be told.

    The name is a text, one of the `values` (the parameters), or a text that a piece of code before gave a
    name to. Nothing is executed.
    """
    known: set[str] = set()  # how the code so far may write Run: 'trainlab.Run', or 'R' for `import Run as R`
    constants: dict[str, Any] = {}
    for source in code:
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in nodes:
            if isinstance(node, ast.Import):
                ours = [each for each in node.names if each.name.partition(".")[0] == OURS.name]
                known |= {f"{each.asname or OURS.name}.Run" for each in ours}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == OURS.name:
                known |= {each.asname or each.name for each in node.names if each.name == "Run"}
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                names = [each.id for each in node.targets if isinstance(each, ast.Name)]
                constants |= dict.fromkeys(names, node.value.value)
        calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in known]
        if calls:
            call = min(calls, key=lambda call: (call.lineno, call.col_offset))
            named = [*call.args[:1], *(each.value for each in call.keywords if each.arg == "experiment")]
            first = named[0] if named else None
            texts = constants | dict(values)
            name = texts.get(first.id) if isinstance(first, ast.Name) else getattr(first, "value", None)
            return name if isinstance(name, str) and name.strip() else None
    return None


def is_installed(file: Path) -> bool:
    """Tell whether a file is trainlab's, Python's or an installed package's, a package's command included."""
    places = (OURS, EXAMPLES, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "scripts")))
    return any(map(file.is_relative_to, places)) or not _INSTALLED.isdisjoint(file.parts)


def _typed(frame: FrameType) -> Path:
    """Return the notebook as VS Code or Jupyter name it, and the working folder where nobody does."""
    told = frame.f_globals.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    if told and "ipykernel" in sys.modules and Path(told).parent.is_dir():
        return Path(told)
    return Path.cwd()
