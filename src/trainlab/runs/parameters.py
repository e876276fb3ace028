"""What a notebook may be given on the command line, and what it makes of it.

Two kinds of notebook: one names its settings class in its metadata (`trainlab.config`), and that class
parses and checks everything; any other shows by the defaults in its cell tagged `parameters` what it takes.
"""

from __future__ import annotations

import ast
import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from trainlab.cleaning import printable
from trainlab.config import Config, assignments
from trainlab.errors import UserError, nearest
from trainlab.runs import resuming, secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from nbformat import NotebookNode

TAG = "parameters"
HOW_TO_TAG = (
    "Put the defaults (name = value) into one cell and tag that cell 'parameters': in JupyterLab click the "
    "gears at the top right, 'Cell tags', 'Add tag'."
)


@dataclass(frozen=True)
class Parameters:
    """`injected` is what goes into the notebook behind its own defaults; `config` is what the run records."""

    injected: dict[str, Any]
    config: dict[str, Any]


def given(words: Iterable[str], **options: str | int | None) -> dict[str, str]:
    """Return the command line's `key=value` words, and those options that set a parameter of the same name.

    Raises UserError where both are given and differ.
    """
    values = assignments(words)
    for name, value in options.items():
        if value is not None and values.setdefault(name, str(value)) != str(value):
            raise UserError(
                f"the {name} is given twice: --{name} {value} and {name}={values[name]}. Give it once."
            )
    return values


def resolve(notebook: NotebookNode, folder: Path, values: Mapping[str, str]) -> Parameters:
    """Turn the command line's texts into typed values, in the order command line, notebook, default.

    `folder` is the notebook's own, from which its kernel imports. Raises UserError, before anything was
    written, for a name that the notebook does not have or a value that it cannot take.
    """
    defaults = notebook_defaults(notebook)
    settings = settings_class(notebook, folder)
    if settings is None:
        return _by_defaults(values, defaults)
    known = {name: value for name, value in (defaults or {}).items() if name in settings.model_fields}
    config = settings.parse({name: value for name, value in known.items() if value is not ...} | dict(values))
    config.preflight()
    dumped = config.model_dump(mode="json")
    return Parameters({name: dumped[name] for name in settings.named(values) if name in dumped}, dumped)


def resumed(settings: type[Config], values: Mapping[str, str], before: Mapping[str, Any]) -> Parameters:
    """Return the settings that a run goes on with: those `before`, and the values given now.

    All of them are injected, so that the notebook's own defaults don't matter. Raises UserError for a value
    that can't be, or that differs from the one before and must not.
    """
    known = settings.named(before)
    if dropped := known.keys() - settings.model_fields.keys():
        names = printable(", ".join(sorted(dropped)))
        print(f"settings that the run had and {settings.__name__} has no more: {names}")
    hidden = {name for name, value in known.items() if value == secrets.HIDDEN}  # the notebook knows them
    kept = {name: value for name, value in known.items() if name not in dropped | hidden}
    config = settings.parse(kept | settings.named(values))
    resuming.check_same(settings, before, config.model_dump())
    config.preflight()
    dumped = config.model_dump(mode="json")
    return Parameters({name: value for name, value in dumped.items() if name not in hidden}, dumped)


def notebook_defaults(notebook: NotebookNode) -> dict[str, Any] | None:
    """Return names and defaults of the cell tagged `parameters`, or None where there is no such cell.

    A default that is no literal is `...`. Python's own parser reads the cell: papermill's works line by
    line and loses every line with two equals signs.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    cells = [c for c in notebook.cells if c.cell_type == "code" and TAG in c.metadata.get("tags", [])]
    if not cells:
        return None
    try:
        tree = ast.parse(TransformerManager().transform_cell(cells[0].source))
    except SyntaxError as error:
        raise UserError(f"the notebook's cell tagged 'parameters' is not Python: {error}") from None
    defaults = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            defaults[statement.targets[0].id] = _literal(statement.value)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            defaults[statement.target.id] = _literal(statement.value)
    return defaults


def settings_class(notebook: NotebookNode, folder: Path) -> type[Config] | None:
    """Return the Config class that the notebook's metadata names as `module:Class`, or None."""
    named = notebook.metadata.get("trainlab", {}).get("config")
    if named is None:
        return None
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    module, _, name = str(named).partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the notebook's metadata names the settings {named!r}, and: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Config)):
        raise UserError(f"the notebook's metadata names {named!r}, which is no trainlab.config.Config.")
    return found


def _by_defaults(values: Mapping[str, str], defaults: Mapping[str, Any] | None) -> Parameters:
    if defaults is None and values:
        raise UserError(f"the notebook has no parameters, so {', '.join(values)} cannot be set. {HOW_TO_TAG}")
    defaults = defaults or {}
    for name in values:
        if name not in defaults:
            known = ", ".join(sorted(defaults)) or "none"
            raise UserError(f"{name}: no such parameter.{nearest(name, defaults)} Known: {known}.")
    typed = {name: _like(defaults[name], name, text) for name, text in values.items()}
    return Parameters(typed, {name: value for name, value in defaults.items() if value is not ...} | typed)


def _like(default: Any, name: str, text: str) -> Any:
    """Convert `text` to the type of the default; a default of None or an expression takes any literal."""
    if isinstance(default, str):
        return text
    kind = type(default)
    if kind in (bool, int, float):
        try:
            return TypeAdapter(kind).validate_strings(text)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input ")
            raise UserError(f"{name}={text}: {reason}. Its default is {default!r}.") from None
    value = _literal_text(text)
    if kind in (list, tuple, dict, set) and not isinstance(value, kind):
        raise UserError(f"{name}={text}: expected a {kind.__name__} like its default {default!r}.")
    return value


def _literal_text(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else ...
    except ValueError:
        return ...
