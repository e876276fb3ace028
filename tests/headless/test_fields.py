"""Settings as fields of a form."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from trainlab.config import Config
from trainlab.headless import fields
from trainlab.headless.programs import Program


class Base(Config):
    """What all have: `seed` of what is drawn."""

    seed: int = Field(0, ge=0, lt=2**32)


class Settings(Base):
    """Trains: `margin` parts two; with `patience` it ends sooner. `workers` prepare (auto: measured)."""

    margin: float = Field(3.0, gt=0, description="How far apart.")
    patience: int | None = Field(None, ge=1)
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    shape: Literal["line", "curve"] = "line"
    size: tuple[int, int] = (3, 4)
    name: str
    quick: bool = False
    extra: Literal["a", "b"] | None = None
    share: Annotated[int | float, Field(ge=0)] = 0
    anything: object = None
    resume: str = Field("", exclude=True)


@pytest.fixture
def known():
    found = Program([], lambda texts, _: texts, settings=Settings, defaults={"margin": 5.0, "seed": ...})
    return {each["name"]: each for each in fields.of(found)}


def test_a_field_has_its_default_which_the_notebook_s_own_replaces(known):
    defaults = {name: each["default"] for name, each in known.items()}
    assert defaults == {
        **{
            "seed": "0",
            "margin": "5.0",
            "patience": "",
            "workers": "auto",
            "shape": "line",
            "size": "(3, 4)",
        },
        **{"name": "", "quick": "False", "extra": "", "share": "0", "anything": ""},
    }


def test_a_field_says_what_may_stand_in_it(known):
    assert known["seed"]["kind"] == f"whole number from 0 below {2**32}"
    assert known["margin"]["kind"] == "number above 0"
    assert known["patience"]["kind"] == "whole number from 1 or nothing"
    assert known["workers"]["kind"] == "'auto' or whole number from 0"
    assert known["workers"]["choices"] == [], "a number may be any"
    assert known["share"]["kind"] == "number"
    assert known["shape"]["choices"] == ["line", "curve"]
    assert known["quick"]["choices"] == ["True", "False"]
    assert known["extra"]["choices"] == ["", "a", "b"]


def test_a_field_has_its_description_or_the_sentence_that_names_it(known):
    assert known["margin"]["doc"] == "How far apart."
    assert known["patience"]["doc"] == "with patience it ends sooner."
    assert known["seed"]["doc"] == "What all have: seed of what is drawn."
    assert known["workers"]["doc"] == "workers prepare (auto: measured)."
    assert known["name"]["doc"] == ""


def test_settings_that_json_has_no_word_for_are_fields_all_the_same():
    class Odd(Config):
        function: type = int
        margin: float = 1.0

    found = fields.of(Program([], lambda texts, _: texts, settings=Odd))
    assert [(each["name"], each["default"]) for each in found] == [
        ("function", "<class 'int'>"),
        ("margin", "1.0"),
    ]
