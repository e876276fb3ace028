"""What is wrong with a question is told without a word of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainlab.serving.questions import NearestQuestion, SentimentQuestion, sentence


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"title": "secret" * 200}, "title: String should have at most 1000 characters."),
        ({"title": " \t\n"}, "title: String should have at least 1 character."),
        ({"title": "a", "k": 101}, "k: Input should be less than or equal to 100."),
        ({"title": "a", "k": 0}, "k: Input should be greater than or equal to 1."),
        ({"title": "a", "k": "secret"}, "k: Input should be a valid integer"),
        (
            {"title": "a", "abstract": "secret" * 2000},
            "abstract: String should have at most 10000 characters.",
        ),
        ({"title": "\ud800secret"}, "title: Input should be a valid string"),
        ({"title": "a", "page": "secret"}, "page: Extra inputs are not permitted."),
        ({"title": "a", "p" * 40 + "secret" * 1000: ""}, f"{'p' * 40}: Extra inputs are not permitted."),
        ({}, "title: Field required."),
    ],
)
def test_a_question_beyond_its_limits_is_refused_with_what_was_expected(asked: dict, told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        NearestQuestion.model_validate(asked)
    found = sentence(refused.value.errors())
    assert found.startswith(told)
    assert "secret" not in found


def test_blanks_around_a_text_are_no_part_of_it() -> None:
    assert SentimentQuestion(text="  good \n").text == "good"


def test_of_many_faults_the_first_three_are_told() -> None:
    assert sentence([{"loc": ("body", name), "msg": "no"} for name in "abcdef"]) == "a: no. b: no. c: no."
