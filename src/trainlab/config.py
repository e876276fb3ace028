"""Hyperparameters: one typed, frozen class an experiment, parsed and checked in one place.

A subclass's fields are the notebook's parameters, the command line's `key=value` and the columns of the
hparams tab:

    class MyConfig(Config):
        learning_rate: float = Field(1e-3, gt=0)

    MyConfig.parse({"learning_rate": "3e-4"})
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from trainlab import paths
from trainlab.errors import UserError, nearest, some, without_traceback
from trainlab.secrets import is_secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

LONGEST_WORD = 30  # characters of a setting without a default that is part of a run's name
FEW = 5  # names that a sentence may list
_COLLECTIONS = ("list_type", "tuple_type", "dict_type", "set_type", "frozen_set_type")  # pydantic's refusals


class SettingsError(UserError):
    """Settings that can't be: a sentence for each; `faults` has them by name, '' for those of several."""

    def __init__(self, faults: Iterable[tuple[str, str]]) -> None:
        found = list(faults)
        super().__init__("\n".join(sentence for _, sentence in found))
        self.faults: dict[str, str] = {}
        for name, sentence in found:
            self.faults[name] = " ".join(filter(None, [self.faults.get(name), sentence]))


class Config(BaseModel):
    """Base of every experiment's settings: immutable, typed, and strict about names.

    `ALIASES` maps other names of a setting, a library's say, to the field that they mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    ALIASES: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build the settings from names and values; text such as '3e-4' is converted to the field's type.

        Raises SettingsError that names each key, what was given, what is allowed, and the nearest known name;
        and for a secret, whose value it doesn't repeat.
        """
        named = cls.named(values)
        secret = [
            key for key, each in named.items() if isinstance(each, str) and each and is_secret(key, each)
        ]
        if secret:
            raise SettingsError((key, no_secret(key)) for key in secret)
        try:
            return cls(**named | cls._read(named))
        except ValidationError as error:
            raise SettingsError(
                (str(each["loc"][0]) if each["loc"] else "", cls._explain(each)) for each in error.errors()
            ) from None

    @classmethod
    def from_notebook(cls, names: Mapping[str, Any]) -> Self:
        """Build the settings from a notebook's `globals()`: the names that are fields, and no others."""
        return cls.parse({key: names[key] for key in cls.model_fields if key in names})

    @classmethod
    def from_command_line(cls, words: Iterable[str] | None = None) -> Self:
        """Build the settings from a script's arguments: `key=value`, `--key=value` or `--key value`.

        `trainlab run SCRIPT key=value` hands its parameters on in this way. Without `words` they are
        `sys.argv[1:]`.
        """
        rest, joined = list(sys.argv[1:] if words is None else words), []
        while rest:
            word = rest.pop(0)
            if word.startswith("--") and "=" not in word and rest:
                word = f"{word}={rest.pop(0)}"
            key, equals, value = word.partition("=")
            joined.append(f"{key.lstrip('-').replace('-', '_')}{equals}{value}")
        try:
            return cls.parse(assignments(joined))
        except UserError as error:
            without_traceback(error)
            raise

    @classmethod
    def named(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values under their fields' own names; raise UserError for a setting given twice."""
        renamed: dict[str, Any] = {}
        for key, value in values.items():
            name = cls.ALIASES.get(key, key)
            if name in renamed:
                raise UserError(
                    f"{name} is given twice: {renamed[name]!r}, and {value!r} as {key}. Give it once."
                )
            renamed[name] = value
        return renamed

    @classmethod
    def own_first(cls) -> dict[str, FieldInfo]:
        """Return the settings of a run, a class's own before those it inherits; how it starts is none."""
        names = [name for each in cls.__mro__ for name in vars(each).get("__annotations__", {})]
        known = {name: cls.model_fields[name] for name in names if name in cls.model_fields}
        return {name: each for name, each in known.items() if not each.exclude}

    def changes(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, a class's own before those it inherits."""
        fields = self.own_first()
        return {key: getattr(self, key) for key, each in fields.items() if getattr(self, key) != each.default}

    def preflight(self) -> None:
        """Check files and backbone before a run exists; raise UserError where it cannot work.

        Unless overridden, by `preflight(config)` in the module `data` beside the settings' module `config`.
        It has its place there because data imports its settings, and these must not import data.
        """
        package, _, name = type(self).__module__.rpartition(".")
        if package and name == "config" and find_spec(f"{package}.data"):
            getattr(import_module(f"{package}.data"), "preflight", lambda _: None)(self)

    @classmethod
    def _read(cls, named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of texts such as '(3, 4)', for fields that want a list, a tuple or alike."""
        from trainlab import literals

        try:
            cls(**named)
        except ValidationError as error:
            wanted = {str(each["loc"][0]) for each in error.errors() if each["type"] in _COLLECTIONS}
            return {key: literals.read(named[key]) for key in wanted if isinstance(named.get(key), str)}
        return {}

    @classmethod
    def _explain(cls, error: Any) -> str:
        key = str(error["loc"][0]) if error["loc"] else ""
        if error["type"] == "extra_forbidden":
            return no_parameter(key, [*cls.model_fields, *cls.ALIASES], cls._place())
        if error["type"] == "missing":
            return f"{key} is not given, and has no default."
        reason = error["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
        given = (
            f"{key}={error['input']}: " if key else ""
        )  # a validator of several settings names them itself
        return f"{given}{reason[0].lower()}{reason[1:]}."

    @classmethod
    def _place(cls) -> str:
        """Return where the settings stand: a path, from the project's folder on where it is in there."""
        try:
            file = Path(inspect.getfile(cls))
        except (OSError, TypeError):  # typed into a notebook
            return f"the class {cls.__name__}"
        root = paths.root().resolve()
        shown = file.relative_to(root) if file.is_relative_to(root) else file
        return f"{shown}: class {cls.__name__} and those that it is made from"


def path_or(*names: str) -> AfterValidator:
    """Annotate a setting that is a path, one of these names or a Hub id: `Annotated[str, path_or("sample")]`.

    A path is made absolute, because a notebook's kernel runs in another folder than the command line. A name
    is left alone, whatever files are called so.
    """

    def absolute(value: str) -> str:
        path = Path(value).expanduser()
        is_path = value not in names and (value.startswith(("~", ".", "/")) or path.exists())
        return str(path.absolute()) if is_path else value

    return AfterValidator(absolute)


def settings_dict(settings: Any) -> dict[str, Any]:
    """Return the settings of a Config, a mapping, an `argparse.Namespace`, a dataclass or None.

    How a session was started is no setting: `resume` is left out, as in a Config.
    Raises UserError for anything else.
    """
    if isinstance(settings, BaseModel):
        return settings.model_dump()
    if isinstance(settings, argparse.Namespace):
        settings = vars(settings)
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        settings = {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)}
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError(
            f"Settings of type {type(settings).__name__}: expected a dict, an argparse.Namespace, "
            "a dataclass or a Config."
        )
    return {str(key): value for key, value in (settings or {}).items() if key != "resume"}


def changes(settings: Any) -> dict[str, Any]:
    """Return the settings that tell a run from others, for its name.

    Of a Config or a dataclass they are those that differ from their defaults. Others have no defaults: there
    they are numbers and words; none that is off, empty or a path.
    """
    if isinstance(settings, Config):
        found = settings.changes()
    else:
        given = settings_dict(settings)
        found = {key: value for key, value in given.items() if isinstance(value, str | int | float)}
        if dataclasses.is_dataclass(settings):
            fields = {each.name: each for each in dataclasses.fields(settings)}
            found = {key: value for key, value in found.items() if value != fields[key].default}
        else:
            words = {key: str(value) for key, value in found.items() if value is not False}
            short = {key for key, word in words.items() if 0 < len(word) <= LONGEST_WORD and "/" not in word}
            found = {key: value for key, value in found.items() if key in short}
    return {key: value for key, value in found.items() if key != "tracker"}


def no_parameter(name: str, known: Iterable[str], place: str) -> str:
    """Return what to say of a parameter that isn't there: the nearest three, the `place` of the rest."""
    names = list(known)
    rest = f"Known: {some(names)}." if len(names) <= FEW else f"All {len(names)} stand in {place}."
    return f"{name}: no such parameter.{nearest(name, names, most=3)} {rest}"


def no_secret(name: str) -> str:
    """Return why a secret is no parameter, and where it belongs."""
    variable = re.sub(r"\W+|(?<=[a-z])(?=[A-Z])", "_", name).upper()
    return (
        f"{name}: a secret is no parameter: it would stand in the run's name, its run.json and its notebook. "
        f"Set {variable} in the environment, or in .env where .env.example names it; the code reads "
        f"os.environ['{variable}']."
    )


def assignments(words: Iterable[str]) -> dict[str, str]:
    """Split the command line's `key=value` words.

    Raises UserError for a word without `=`, an empty key, a secret, or a key given twice.
    """
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"{word!r} is not a parameter. Expected key=value, for instance margin=5.")
        if is_secret(key, value):
            raise UserError(no_secret(key))
        if key in values:
            raise UserError(f"{key} is given twice: {values[key]!r} and {value!r}. Give it once.")
        values[key] = value
    return values
