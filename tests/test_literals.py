"""A value is written so that Python reads the same one again."""

from __future__ import annotations

import math

import pytest

from trainlab import literals

VALUES = [
    *(None, True, -1, 10**400, 0.1, -0.0, math.inf, -math.inf, 1e-320, 2j, complex(-0.0, -0.0)),
    *("", "a'b\"c\\\n\t\0", "\udcff", "日本", b"", b"\xff'\"", ...),
    *([], [1, [2.0]], (), (1,), (1, (2, "a")), set(), {1, "a", (2,)}, frozenset(), frozenset({1})),
    *({}, {"a": (3, 4), 1: {"b": {5}}, (1, 2): None}, [True, 1, 1.0], complex(math.inf, 1)),
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))  # not by value: a set's order is no name
def test_what_is_written_is_read_as_the_same_value_of_the_same_type(value):
    again = eval(literals.written(value))
    assert type(again) is type(value)
    assert (repr(again), again) == (repr(value), value) or isinstance(value, set | frozenset)
    assert again == value


def test_not_a_number_stays_not_a_number():
    assert math.isnan(eval(literals.written((math.nan, 1)))[0])


@pytest.mark.parametrize(
    "value", [object(), [object()], {"a": object()}, 16**9000, range(3)], ids=lambda _: ""
)
def test_what_python_cannot_write_is_refused(value):
    with pytest.raises(ValueError, match=r"can't be written|limit"):
        literals.written(value)


@pytest.mark.parametrize(
    "text", ["{[]}", "[" * 10_000, "(" * 300, "-" * 5000 + "1", "a b", "1 +", "", "\0"], ids=lambda _: ""
)
def test_a_text_that_is_no_value_is_itself(text):
    assert literals.read(text) == text
