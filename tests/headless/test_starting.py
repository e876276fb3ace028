"""Looks at settings, each in a process of its own."""

from __future__ import annotations

import sys

import pytest

from trainlab.errors import UserError
from trainlab.headless import starting

SETTINGS = """
from trainlab.config import Config
print("printed at import")
class Settings(Config):
    margin: float = {default}
"""


@pytest.fixture
def settings(here):
    def write(default):
        (here.root / "notebooks" / "looked_at_settings.py").write_text(SETTINGS.format(default=default))
        return here.notebook("named", "1", config="looked_at_settings:Settings")

    return write


def test_a_look_sees_the_settings_as_they_are_now_and_imports_none_of_them(settings):
    path = settings("3.0")
    assert [each["default"] for each in starting.ask(path)["fields"]] == ["3.0"]
    settings("40.0")  # of another length: Python tells a module of the same second by its size
    assert [each["default"] for each in starting.ask(path)["fields"]] == ["40.0"]
    assert "looked_at_settings" not in sys.modules


def test_settings_that_end_the_process_are_told_by_its_last_words(settings):
    with pytest.raises(
        UserError, match=r"named\.ipynb can't be started: ZeroDivisionError: division by zero"
    ):
        starting.ask(settings("1 / 0"))


def test_a_sentence_is_of_the_setting_that_it_begins_with():
    assert starting.at("data=x: no such file.", ["dat", "data"]) == "data"
    assert starting.at("data2=x: no such file.", ["data"]) == ""
