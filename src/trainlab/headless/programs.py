"""What a program's settings are, as far as that can be known before it starts.

A notebook tells by its settings class or its cell tagged `parameters`. A script tells where it reads its
arguments by `Settings.from_command_line()`: its imports and classes are executed, and nothing else of it. A
function tells by its parameters.
Any other script knows its settings itself.
"""

from __future__ import annotations

import ast
import re
import sys
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainlab import literals, origin
from trainlab.config import Config
from trainlab.errors import UserError
from trainlab.headless import finding, function
from trainlab.headless.parameters import NOT_PYTHON, notebook_defaults, read, resolve, settings_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Texts = dict[str, str]  # settings as the command line has them
PARSER = "from_command_line"  # by which a script reads its arguments through a Config


@dataclass(frozen=True)
class Program:
    """Reads settings as a program does.

    Attributes:
        experiments: Under which its runs lie.
        read: Given texts, returns the values under the same names; `whole` checks the files and the machine
            too. Raises UserError for what can't be.
        known: Whether the program's own types were found.
        settings: The class that has them, None without one.
        defaults: What a notebook's cell tagged `parameters` gives to names; `...` for what is no literal.
    """

    experiments: list[str]
    read: Callable[[Texts, bool], Mapping[str, Any]]
    known: bool = True
    settings: type[Config] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


def find(program: str, texts: Texts, *, module: bool = False) -> Program:
    """Return what is known of a program; raise UserError where it can't be told such `texts`."""
    path = finding.find_module(program) if module else finding.find_program(program)
    if path.suffix == finding.SCRIPT:
        source = path.read_text(errors="replace")
        name = re.split("[.:]", program)[-1] if module else path.stem
        experiments = finding.experiments_of(name, [source], {})
        settings: type[Config] | None
        if finding.is_function(program):
            settings, _ = function.settings_of(function.load(program))
        else:
            finding.check_reads_arguments(path, source, texts)
            settings = _class_of_script(path, source, program if module else "")
        if settings is None:
            return Program(experiments, _as_literals, known=False)
        return Program(experiments, _of_class(settings, {}), settings=settings)
    from trainlab.headless import notebook

    nb = notebook.read(path)
    found, defaults = settings_class(nb, path.parent), notebook_defaults(nb)
    experiments = finding.experiments_of(path.stem, origin.sources(nb), defaults or {})

    def by_defaults(texts: Texts, _: bool) -> Mapping[str, Any]:
        return resolve(None, defaults, texts).injected

    reads = by_defaults if found is None else _of_class(found, defaults)
    return Program(experiments, reads, settings=found, defaults=defaults or {})


def _of_class(
    settings: type[Config], defaults: Mapping[str, Any] | None
) -> Callable[[Texts, bool], Mapping[str, Any]]:
    def values(texts: Texts, whole: bool) -> Mapping[str, Any]:
        config = read(settings, defaults, texts)
        if whole:
            config.preflight()
        return {key: getattr(config, settings.ALIASES.get(key, key)) for key in texts}

    return values


def _as_literals(texts: Texts, _: bool) -> dict[str, Any]:
    found = {key: literals.read(value) for key, value in texts.items()}
    return {key: value if type(value) in (int, float) else texts[key] for key, value in found.items()}


def _class_of_script(path: Path, source: str, module: str) -> type[Config] | None:
    """Return the class whose `from_command_line` a script calls, None where that can't be found out."""
    try:
        tree = ast.parse(source, str(path))
    except NOT_PYTHON:
        return None  # it says so itself, when it starts
    calls = (each.func for each in ast.walk(tree) if isinstance(each, ast.Call))
    named = [
        ast.unparse(each.value) for each in calls if isinstance(each, ast.Attribute) and each.attr == PARSER
    ]
    expression = named[0] if len(named) == 1 else ""
    if not all(map(str.isidentifier, expression.split("."))):
        return None
    script = types.ModuleType("__trainlab_settings__")
    script.__dict__.update(__file__=str(path), __package__=module.rpartition(".")[0])
    sys.modules[script.__name__] = script  # where pydantic looks for what annotations name
    sys.path[0] = "" if module else str(path.parent)  # as Python has it for a script
    kept = [each for each in tree.body if _only_defines(each)]
    try:
        exec(compile(ast.Module(kept, []), str(path), "exec"), script.__dict__)
        found = eval(expression, script.__dict__)
    except UserError:
        raise
    except Exception:
        return None
    return found if isinstance(found, type) and issubclass(found, Config) else None


def _only_defines(statement: ast.stmt) -> bool:
    """Tell whether a statement gives something a name and does nothing else."""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return not any(isinstance(each, ast.Call) for each in ast.walk(statement))
    definitions = ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(statement, definitions)
