"""What a notebook may be given on the command line, and what it makes of it.

Two kinds of notebook: one names its settings class in its metadata (`trainlab.config`), and that class
parses and checks everything; any other shows by the defaults in its cell tagged `parameters` what it takes.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

import trainlab
from trainlab import literals, paths, secrets
from trainlab.cleaning import printable
from trainlab.config import Config, SettingsError, assignments, no_parameter
from trainlab.errors import UserError
from trainlab.experiments import PACKAGE
from trainlab.run import record, resuming

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nbformat import NotebookNode

TAG = "parameters"
NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)  # what Python's parser says of a text
NAMED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")  # module:Class, or module:function
HOW_TO_TAG = (
    "Put the defaults (name = value) into one cell and tag that cell 'parameters': in JupyterLab click the "
    "gears at the top right, 'Cell tags', 'Add tag'."
)


@dataclass(frozen=True)
class Parameters:
    """`injected` goes into the notebook behind its defaults; `config` is what the run records, as JSON."""

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


def resolve(
    settings: type[Config] | None, defaults: Mapping[str, Any] | None, values: Mapping[str, str]
) -> Parameters:
    """Turn the command line's texts into typed values, in the order command line, notebook, default.

    Raises:
        UserError: The notebook does not have a name, or cannot take a value; nothing was written yet.
    """
    if settings is None:
        return _by_defaults(values, defaults)
    config = read(settings, defaults, values)
    config.preflight()
    return _of_settings(config, settings.named(values))


def read(settings: type[Config], defaults: Mapping[str, Any] | None, values: Mapping[str, str]) -> Config:
    """Return the settings that `resolve` checks and hands on; raise UserError for a value that can't be."""
    known = {name: value for name, value in (defaults or {}).items() if name in settings.model_fields}
    return settings.parse({name: value for name, value in known.items() if value is not ...} | dict(values))


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
    return _of_settings(config, config.model_dump())


def resumed_by_defaults(
    defaults: Mapping[str, Any], values: Mapping[str, str], before: Mapping[str, Any], injected: str
) -> Parameters:
    """Return what a run of a notebook without settings class goes on with: what it had, and values given now.

    It had what `run.json` says; what that leaves out, and the type of what JSON can't hold, stands in the
    cell that its notebook was filled with. Raises UserError for a value that can't be.
    """
    now = _by_defaults(values, defaults).injected
    filled = _defaults_in(injected) if injected else {}
    for name, default in defaults.items():
        had = filled.get(name, ...)
        if name in now or name == "resume" or before.get(name) == secrets.HIDDEN:  # that the notebook knows
            continue
        if had is not ... and record.plain(had) == before.get(name, record.plain(had)):
            now[name] = had
        elif name in before:
            now[name] = _as_default(before[name], default)
    return Parameters(now, record.plain(now))


def _as_default(value: Any, default: Any) -> Any:
    """Return what JSON made of a value as the type that its default has, where it can be."""
    kind = type(default)
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind is set and isinstance(value, list):
        return {tuple(each) if isinstance(each, list) else each for each in value}
    if kind is float and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return literals.read(value) if kind in (complex, bytes) and isinstance(value, str) else value


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
        return _defaults_in(TransformerManager().transform_cell(cells[0].source))
    except NOT_PYTHON as error:
        fault = str(error) or "it is nested too deeply"
        raise UserError(f"the notebook's cell tagged 'parameters' is not Python: {fault}") from None


def _defaults_in(code: str) -> dict[str, Any]:
    """Return what a piece of code gives to names; raise SyntaxError where it is not Python."""
    defaults = {}
    for statement in ast.parse(code).body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name), *_], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ):
                defaults[name] = literals.of_node(value)
    return defaults


def settings_class(notebook: NotebookNode, folder: Path) -> type[Config] | None:
    """Return the Config class that the notebook's metadata names as `module:Class`, or None.

    The module is trainlab's, an experiment's, or lies in the notebook's folder or the project's src/; where
    it has no such name, nothing is imported.

    Raises:
        UserError: It is any other: a notebook from elsewhere must not choose what is executed here.
    """
    named = notebook.metadata.get("trainlab", {}).get("config")
    if not named:
        return None
    if not (isinstance(named, str) and NAMED.fullmatch(named)):
        raise UserError(f"the notebook's metadata name the settings {named!r}; expected 'module:Class'.")
    module, _, name = named.partition(":")
    first = module.partition(".")[0]
    package, own = Path(trainlab.__file__).parent, [str(folder), str(paths.root() / "src")]
    places = [str(package.parent)] if first in (package.name, PACKAGE) else []
    places += [] if first == package.name else own  # the examples lie beside trainlab, or in a lab's src/
    file = module_file(module, places)
    if file is None:
        raise UserError(
            f"the notebook's metadata name the settings {named!r}, a module that is neither trainlab's nor a "
            f"file in {own[0]} or {own[1]}. Put it there, beside the notebook."
        )
    sys.path += [place for place in own if place not in sys.path]
    try:
        if module_file(first) != module_file(first, places):
            raise ImportError(f"Python has another module {first!r}; rename the project's own")
        tree = ast.walk(ast.parse(file.read_bytes(), str(file)))
        bound = {
            each.id if isinstance(each, ast.Name) else getattr(each, "asname", None) or each.name
            for each in tree
            if isinstance(each, ast.ClassDef | ast.alias)
            or (isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store))
        }
        if bound.isdisjoint({name, "*"}):
            raise AttributeError(f"{file} has no class {name!r}")
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, *NOT_PYTHON) as error:
        raise UserError(f"the notebook's metadata name the settings {named!r}, and: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Config)):
        raise UserError(f"the notebook's metadata name {named!r}, which is no trainlab.config.Config.")
    return found


def module_file(name: str, places: list[str] | None = None) -> Path | None:
    """Return the file of a module or package, searched for in folders or else as Python does.

    Nothing is imported for it. None where there is no such file.
    """
    parts, spec = name.split("."), None
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), places)
        places = list(spec.submodule_search_locations or []) if spec else []
    return Path(spec.origin).resolve() if spec and spec.origin and spec.has_location else None


def _of_settings(config: Config, names: Iterable[str]) -> Parameters:
    """Return settings as they are where Python can write them, and in pydantic's JSON form elsewhere."""
    values = config.model_dump()
    injected = {}
    for name in values.keys() & set(names):
        try:
            literals.written(values[name])
            injected[name] = values[name]
        except ValueError:
            injected[name] = config.model_dump(mode="json", include={name})[name]
    return Parameters({name: injected[name] for name in names if name in injected}, record.plain(values))


def _by_defaults(values: Mapping[str, str], defaults: Mapping[str, Any] | None) -> Parameters:
    if defaults is None and values:
        raise UserError(f"the notebook has no parameters, so {', '.join(values)} cannot be set. {HOW_TO_TAG}")
    defaults, typed, faults = defaults or {}, {}, []
    for name, text in values.items():
        if name not in defaults:
            place = "the notebook's cell tagged 'parameters'"
            faults.append((name, no_parameter(name, defaults, place)))
            continue
        try:
            typed[name] = _like(defaults[name], name, text)
        except UserError as error:
            faults.append((name, str(error)))
    if faults:
        raise SettingsError(faults)
    literal = {name: value for name, value in defaults.items() if value is not ...}
    config = literal | typed
    return Parameters(typed, record.plain(config))


def _like(default: Any, name: str, text: str) -> Any:
    """Convert `text` to the type of the default; a default of None or an expression takes any literal.

    Raises UserError for what can't be that, or can't be written into a notebook.
    """
    if isinstance(default, str):
        return text
    kind = type(default)
    if kind in (bool, int, float):
        try:
            return TypeAdapter(kind).validate_strings(text)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input ")
            raise UserError(f"{name}={text}: {reason}. Its default is {default!r}.") from None
    value = literals.read(text)
    if kind is complex and type(value) in (int, float):
        value = complex(value)
    if default not in (None, ...) and not isinstance(value, kind):
        raise UserError(f"{name}={text}: expected {kind.__name__} like its default {default!r}.")
    try:
        literals.written(value)
    except ValueError as error:
        raise UserError(f"{name}={text[:40]}...: {error}.") from None
    return value
