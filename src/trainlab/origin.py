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
    from collections.abc import Iterator, Mapping
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
        if file.is_file() and not _is_installed(file):
            return file
        if frame.f_globals.get("__name__") == "__main__" and not file.is_file():  # a cell, `python -c`
            return _typed(frame)
        frame = frame.f_back
    main = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "")
    return OURS if main.stem == "trainlab" or main.is_relative_to(OURS) else None


def experiment(notebook: NotebookNode, values: Mapping[str, Any]) -> str | None:
    """Return the experiment that the notebook's first `Run("name", ...)` names, None where it can't be told.

    The name is a text, one of the `values` (the notebook's parameters), or a text that a cell before gave a
    name to. Nothing is executed.
    """
    known: set[str] = set()  # how the cells so far may write Run
    constants: dict[str, Any] = {}
    for tree in _trees(notebook):
        nodes = list(ast.walk(tree))
        known |= {name for node in nodes for name in _imported(node)}
        constants |= {
            node.targets[0].id: node.value.value
            for node in nodes
            if isinstance(node, ast.Assign)
            if isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant)
        }
        calls = [node for node in nodes if isinstance(node, ast.Call) and _written(node.func) in known]
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            return _name_in(call, constants | dict(values))
    return None


def _trees(notebook: NotebookNode) -> Iterator[ast.Module]:
    """Yield the code cells that are Python."""
    from IPython.core.inputtransformer2 import TransformerManager

    for cell in notebook.cells:
        if cell.cell_type == "code":
            with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                yield ast.parse(TransformerManager().transform_cell(cell.source))


def _imported(node: ast.AST) -> list[str]:
    """Return how `Run` is written after this import: 'trainlab.Run', or 'R' for `import Run as R`."""
    if isinstance(node, ast.Import):
        names = [each.asname or each.name.partition(".")[0] for each in node.names if _is_ours(each.name)]
        return [f"{name}.Run" for name in names]
    if isinstance(node, ast.ImportFrom) and _is_ours(node.module or ""):
        return [each.asname or each.name for each in node.names if each.name == "Run"]
    return []


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == OURS.name


def _written(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return f"{function.value.id}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def _name_in(call: ast.Call, values: Mapping[str, Any]) -> str | None:
    named = [each.value for each in call.keywords if each.arg == "experiment"]
    for node in [*call.args[:1], *named]:
        value = values.get(node.id) if isinstance(node, ast.Name) else getattr(node, "value", None)
        return value if isinstance(value, str) and value.strip() else None
    return None


def _is_installed(file: Path) -> bool:
    """Tell whether a file is trainlab's, Python's or an installed package's, a package's command included."""
    places = (OURS, EXAMPLES, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "scripts")))
    return any(map(file.is_relative_to, places)) or not _INSTALLED.isdisjoint(file.parts)


def _typed(frame: FrameType) -> Path:
    """Return the notebook as VS Code or Jupyter name it, and the working folder where nobody does."""
    told = frame.f_globals.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    if told and "ipykernel" in sys.modules and Path(told).parent.is_dir():
        return Path(told)
    return Path.cwd()
