"""What a program takes, as fields of a form: what each setting may be, and what its class says of it."""

from __future__ import annotations

import contextlib
import inspect
import re
from typing import TYPE_CHECKING, Any

from trainlab import literals, secrets
from trainlab.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.headless.programs import Program

KINDS = {  # by JSON's names
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
}
BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "up to {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "pattern": "that fits {}",
}
_SENTENCE = re.compile(r"(?<=[.;])\s+(?![^(]*\))")  # what parts the sentences of a docstring; not in brackets
_LEAST = 3  # words of a sentence: fewer say no more than the name


def of(found: Program) -> list[dict[str, Any]]:
    """Return what is known of each setting, as JSON has it.

    Args:
        found: The program.

    Returns:
        Of each setting its `name`; the `default` as the command line takes it, '' for none; its `kind` in
        words; the `choices` where it may be nothing else; and `doc`, what its class says of it.
    """
    made = []
    if found.settings is None:
        for name, value in found.defaults.items():
            plain = {int: "integer", float: "number", str: "string", bool: "boolean"}.get(type(value), "")
            kind = KINDS.get(plain, "" if value in (None, ...) else type(value).__name__)
            choices = ["True", "False"] if isinstance(value, bool) else []
            made.append(_field(name, value, kind, choices))
        return made
    properties: Mapping[str, Any] = {}
    with contextlib.suppress(Exception):  # pydantic raises a dozen kinds for what JSON has no word for
        properties = found.settings.model_json_schema()["properties"]
    for name, info in found.settings.own_first().items():
        value = found.defaults.get(name, ...)
        if value is ... and not info.is_required():
            value = info.get_default(call_default_factory=True, validated_data={})
        said = info.description or _doc(found.settings, name)
        made.append(_field(name, value, *_kind(properties.get(name, {})), said))
    return made


def _field(name: str, value: Any, kind: str, choices: list[str], doc: str = "") -> dict[str, Any]:
    default = "" if value is ... else secrets.hidden({name: shown(value)})[name]
    choices = [default, *choices] if choices and default not in choices else choices
    return {"name": name, "default": default, "kind": kind, "choices": choices, "doc": doc}


def shown(value: Any) -> str:
    """Return a value as the command line takes it; None is an empty field."""
    try:
        return "" if value is None else value if isinstance(value, str) else literals.written(value)
    except ValueError:
        return str(value)


def _kind(schema: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return what a value may be, in words, and the choices where there are no other values."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if schema.get("type") == "boolean" and not values:
        return KINDS["boolean"], ["True", "False"]
    if values:
        choices = [shown(each) for each in values]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else repr(choices[0]), choices
    if several := schema.get("anyOf"):
        kinds = [_kind(each) for each in several if each.get("type") != "null"]
        empty = [""] if len(kinds) < len(several) else []
        if any(kind == "number" for kind, _ in kinds):
            kinds = [each for each in kinds if each[0] != "whole number"]
        closed = all(choices for _, choices in kinds)
        choices = [*empty, *(each for _, own in kinds for each in own)] if closed else []
        return " or ".join([*(kind for kind, _ in kinds if kind), *(["nothing"] if empty else [])]), choices
    bounds = [said.format(schema[key]) for key, said in BOUNDS.items() if key in schema]
    return " ".join(filter(None, [KINDS.get(schema.get("type", ""), schema.get("type", "")), *bounds])), []


def _doc(settings: type[Config], name: str) -> str:
    """Return the sentence of a docstring of the settings' classes that names one of them, '' for none."""
    for each in settings.__mro__:
        if issubclass(each, Config) and (text := each.__dict__.get("__doc__")):
            for sentence in _SENTENCE.split(" ".join(inspect.cleandoc(text).split())):
                if re.search(rf"`{name}[`=]", sentence) and len(sentence.split()) > _LEAST:
                    return sentence.replace("`", "").rstrip(";.") + "."
    return ""
