"""Executes a function as a script: `python -m trainlab.headless.function MODULE:FUNCTION [--KEY=VALUE]...`.

Its settings are those of the Config that it takes, or else its own parameters, by their annotations and
defaults.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import BeforeValidator, create_model
from pydantic.errors import PydanticUserError

from trainlab import extras, literals, paths
from trainlab.config import Config, assignments
from trainlab.errors import UserError, without_traceback

if TYPE_CHECKING:
    from collections.abc import Callable

# of a parameter without annotation or default
_Anything = Annotated[
    Any, BeforeValidator(lambda each: literals.read(each) if isinstance(each, str) else each)
]


def places() -> list[str]:
    """Return where a function's module is looked for before Python's own places."""
    return [str(Path.cwd()), str(paths.notebooks())]


def load(name: str) -> Callable[..., Any]:
    """Import a function, `module:function`; raise UserError where it isn't there."""
    module, _, function = name.partition(":")
    sys.path[:0] = [each for each in places() if each not in sys.path]
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        told = extras.explained(error, name) if isinstance(error, ModuleNotFoundError) else error
        if isinstance(told, UserError):
            raise told from None
        raise UserError(f"{name}: {error}.") from error
    if not callable(found):
        raise UserError(f"{name} is a {type(found).__name__}. Expected a function that trains.")
    return found


def settings_of(function: Callable[..., Any]) -> tuple[type[Config], bool]:
    """Return the class of a function's settings, and whether it takes one of these as its only argument.

    Raises UserError for parameters that no command line can give.
    """
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = [
            each
            for each in inspect.signature(function).parameters.values()
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        ]
        if len(parameters) == 1:
            kind = hints.get(parameters[0].name)
            if isinstance(kind, type) and issubclass(kind, Config):
                return kind, True
        fields: dict[str, Any] = {}
        for each in parameters:
            default = ... if each.default is each.empty else each.default
            guessed = _Anything if default is ... or default is None else type(default)
            fields[each.name] = (hints.get(each.name, guessed), default)
        made = create_model(
            function.__name__, __base__=Config, __module__=function.__module__, __doc__=None, **fields
        )
    except (NameError, TypeError, ValueError, PydanticUserError) as error:
        raise UserError(
            f"The parameters of {getattr(function, '__name__', function)} can't be settings: "
            f"{str(error).splitlines()[0]}. Let it take a trainlab.config.Config, or plain values."
        ) from None
    return made, False


def call(name: str, words: list[str]) -> None:
    """Call a function with the settings that `--key=value` words give; raise UserError where one can't be."""
    try:
        function = load(name)
        settings, whole = settings_of(function)
        config = settings.parse(assignments(word.removeprefix("--") for word in words))
    except UserError as error:
        without_traceback(error)
        raise
    if whole:
        function(config)
    else:
        function(**{key: getattr(config, key) for key in settings.model_fields})


if __name__ == "__main__":
    call(sys.argv[1], sys.argv[2:])
