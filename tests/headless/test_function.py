"""A function of somebody's as a program: its parameters are its settings."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from trainlab.config import Config
from trainlab.errors import UserError
from trainlab.headless import function


class Settings(Config):
    """Settings of a function that takes them as a whole."""

    rate: float = Field(0.1, gt=0)


def whole(settings: Settings):
    assert isinstance(settings, Settings)


def many(
    rate: Annotated[float, Field(gt=0)],
    opt: Literal["adam", "sgd"] = "adam",
    *,
    steps=3,
    sizes=(1,),
    what=None,
):
    called.append((rate, opt, steps, sizes, what))


def odd(model: object, path: NotThere = None):  # noqa: F821
    """Take what no command line can give."""


called: list[tuple[object, ...]] = []


@pytest.fixture(autouse=True)
def nothing_called():
    called.clear()


def test_a_function_is_called_with_its_settings_each_of_its_type():
    function.call(f"{__name__}:many", ["--rate=1e-3", "--sizes=(3, 4)", "--what=[1]"])
    function.call(f"{__name__}:many", ["--rate=2", "--opt=sgd", "--steps=5", "--what=text"])
    assert called == [(0.001, "adam", 3, (3, 4), [1]), (2.0, "sgd", 5, (1,), "text")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "rate is not given, and has no default"),
        (["--rate=0"], "rate=0: should be greater than 0"),
        (["--rate=1", "--opt=adma"], "opt=adma: should be 'adam' or 'sgd'"),
        (["--rate=1", "--steps=x"], "steps=x: should be a valid integer"),
        (["--rate=1", "--stesp=2"], "stesp: no such parameter. Did you mean 'steps'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_the_call(words, said):
    with pytest.raises(UserError, match=said):
        function.call(f"{__name__}:many", words)
    assert not called


def test_a_function_that_takes_a_config_has_its_settings():
    assert function.settings_of(whole) == (Settings, True)
    function.call(f"{__name__}:whole", ["--rate=2"])
    with pytest.raises(UserError, match="rate=-1: should be greater than 0"):
        function.call(f"{__name__}:whole", ["--rate=-1"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:train", "No module named 'nowhere'"),
        (f"{__name__}:train", "has no attribute 'train'"),
        (f"{__name__}:called", "is a list. Expected a function that trains"),
    ],
)
def test_a_function_that_is_not_there_is_a_sentence(name, said):
    with pytest.raises(UserError, match=said):
        function.load(name)


def test_parameters_that_no_command_line_can_give_are_named():
    with pytest.raises(
        UserError, match="The parameters of odd can't be settings: name 'NotThere' is not defined"
    ):
        function.settings_of(odd)
