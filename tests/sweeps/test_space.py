"""What a sweep may vary, as people write it."""

from __future__ import annotations

import math

import pytest

from trainlab.errors import UserError
from trainlab.sweeps import space
from trainlab.sweeps.space import Choice, Range, parse


def test_words_are_lists_ranges_and_fixed_settings():
    words = ["margin=1,3,5", "lr=1e-5..1e-3:log", "depth=1..9:2", "drop=0..0.5", "name=mine", "data=../x..y"]
    varied, fixed = parse(words)
    assert varied == {
        "margin": Choice((1, 3, 5)),
        "lr": Range(1e-5, 1e-3, log=True),
        "depth": Range(1, 9, step=2),
        "drop": Range(0.0, 0.5),
    }
    assert fixed == {"name": "mine", "data": "../x..y"}
    assert varied["depth"].whole
    assert not varied["drop"].whole


def test_a_comma_behind_a_backslash_is_the_value_s_own():
    varied, fixed = parse([r"sizes=(3\,4),(5\,6)", r"text=a\, b"])
    assert varied == {"sizes": Choice(("(3,4)", "(5,6)"))}
    assert fixed == {"text": "a, b"}


def test_a_text_that_only_looks_like_a_number_keeps_its_form_until_its_type_is_known():
    assert parse(["id=007,1e3,1_000,5"])[0]["id"].values == ("007", "1e3", "1_000", 5)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("margin", "neither a setting nor something to vary"),
        ("=3", "neither a setting"),
        ("margin=1,,3", "an empty value in a list"),
        ("margin=,", "an empty value in a list"),
        ("margin=1,3,1", "the value 1 stands twice"),
        ("sizes=(3,4),(5,6)", r"Write one inside of a value as '\,'"),
        ("margin=1,3..5", "a range inside of a list"),
        ("margin=5..1", "the low end is above the high one. Expected margin=1..5"),
        ("margin=3..3", "both ends are equal. One value is written margin=3"),
        ("lr=0..1:log", "a logarithmic range begins above 0"),
        ("lr=-1..1:log", "a logarithmic range begins above 0"),
        ("depth=1..3:5", "the step is larger than the whole range, 2"),
        ("depth=1..3:0", "a step is above 0"),
        ("depth=1..3:-1", "a step is above 0"),
        ("lr=1..3:log:2", "either log or a step"),
        ("lr=1..3:2:log", "either log or a step"),
        ("lr=1..3:lgo", "Did you mean 'log'?"),
        ("lr=1..1e999", "Expected a finite number"),
        (f"lr=1..{10**400}", "Expected a finite number"),
        (f"lr=1..{'9' * 5000}", "Expected a finite number"),
        (f"depth=1..{10**30}", "smaller ones, or numbers with a point, such as 1e+30"),
        ("lr=-1e308..1e308", "wider than a number can be"),
        ("lr=0.0..1.0:1e-300", "more steps than can be counted"),
        ("lr=0.1..", "a range has two ends"),
        ("lr=..0.1", "a range has two ends"),
        ("lr=0.1...0.5", "a range has two ends"),
        ("lr=0.1 .. 0.5", "a range has two ends"),
        ("lr=0.1…0.5", "a range has two ends"),
        ("lr=0.1,0.2..", "a range has two ends"),
        ("a b=1,2", "'a b' names no setting"),
        ("a\x1b[1m=1,2", "names no setting"),
        ("api_key=a,b", "a secret is no parameter"),
    ],
)
def test_a_word_that_cannot_be_meant_is_refused_with_a_sentence(word, said):
    with pytest.raises(UserError) as error:
        parse([word])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [["margin=1,3", "margin=2"], ["margin=2", "margin=1..3"]])
def test_a_key_is_given_once(words):
    with pytest.raises(UserError, match=r"margin is given twice. Give it once"):
        parse(words)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"margin": []}, "an empty list leaves nothing to try"),
        ({"margin": 3}, "One value belongs under fixed"),
        ({"margin": {"low": 1}}, "a range has low and high"),
        ({"margin": {"low": 0, "high": 1 << 99999}}, "high is a int of that size. Expected a finite number"),
        ({"margin": [1, 1 << 99999]}, "a int of that size can't be tried"),
        ({"margin": 1 << 99999}, "One value belongs under fixed"),
        ({"margin": {"low": 0.5, "high": 10**400}}, "Expected a finite number"),
        ({"a=b": [1, 2]}, "'a=b' names no setting"),
        ({"": [1, 2]}, "'' names no setting"),
        ({"margin": {"low": "1", "high": 3}}, "low is 1. Expected a finite number"),
        ({"margin": {"low": True, "high": 3}}, "low is True. Expected a finite number"),
        ({"margin": {"low": 1, "high": 3, "lgo": True}}, "a range has no 'lgo'"),
        ({"margin": {"low": 1, "high": 3, "log": 1}}, "log is true or false"),
        ({"margin": {"low": 1, "high": math.inf}}, "high is inf"),
        ({"margin": [1, math.nan]}, "nan can't be tried"),
        ({"margin": [{}]}, "{} can't be tried"),
        ({"margin": [[[[[1]]]], 2]}, "can't be tried"),
        ({"margin": [2, 2]}, "the value 2 stands twice"),
        ({"mar\x1bgin": []}, "'mar?gin' names no setting"),
        ({"password": ["a", "b"]}, "a secret is no parameter"),
    ],
)
def test_a_table_from_elsewhere_is_refused_where_it_is_no_space(table, said):
    with pytest.raises(UserError) as error:
        space.from_table(table)
    assert said in str(error.value)
    assert str(error.value).isprintable()


def test_a_space_is_the_same_after_its_way_through_a_file():
    varied, _ = parse(
        ["margin=1,3,5", "opt=adam,sgd", "lr=1e-5..1e-3:log", "depth=1..9:2", "drop=0..0.5:0.1"]
    )
    varied["sizes"] = Choice(([3, 4], [5, 6]))
    assert space.from_table(space.to_table(varied)) == varied


def test_one_and_true_are_two_values():
    choice = space.from_table({"flag": [1, True]})["flag"]
    assert choice == Choice((1, True))
    assert list(space.distribution(choice).choices) == [0, 1], "Optuna would take one for the other"


def test_optuna_samples_whole_numbers_from_whole_ends_and_no_more_than_a_step_reaches():
    varied, _ = parse(["depth=1..9:3", "drop=0..1:0.3", "lr=1e-5..1e-3:log", "margin=1,3", "sizes=a,b"])
    made = {key: space.distribution(each) for key, each in varied.items()}
    assert (made["depth"].low, made["depth"].high, made["depth"].step) == (1, 7, 3)
    assert (made["drop"].low, made["drop"].high, made["drop"].step) == (0.0, 0.9, 0.3)
    assert made["lr"].log
    assert made["margin"].choices == (1, 3)


def test_a_list_of_lists_is_sampled_by_its_index():
    assert list(space.distribution(Choice(([3, 4], [5, 6]))).choices) == [0, 1]


def test_both_ends_and_every_choice_are_points_to_check_and_whole_numbers_between_too():
    varied, _ = parse(["margin=1,3", "depth=1..9:3", "lr=1e-5..1e-3:log", "many=1..100000"])
    assert [[*space.points(each)] for each in varied.values()] == [
        [1, 3],
        [1, 7, 4],
        [1e-5, 1e-3],
        [1, 100000],
    ]


def test_a_grid_has_every_combination_and_a_range_has_no_grid():
    varied, _ = parse(["margin=1,3", "opt=adam,sgd"])
    assert space.combinations(varied) == [
        {"margin": margin, "opt": opt} for margin in (1, 3) for opt in ("adam", "sgd")
    ]
    assert space.combinations(varied | parse(["lr=0..1"])[0]) is None


def test_a_grid_that_nobody_can_train_is_refused():
    many = {f"key{each}": Choice(tuple(range(10))) for each in range(6)}
    with pytest.raises(UserError, match="1,000,000 combinations"):
        space.combinations(many)


def test_a_value_is_written_as_the_command_line_has_it():
    assert [space.text(each) for each in ("a b", 1e-05, True, [3, "x"], None)] == [
        "a b",
        "1e-05",
        "True",
        "[3, 'x']",
        "None",
    ]
