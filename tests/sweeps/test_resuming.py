"""A sweep that goes on, and what an order for more trials leaves that was cut short."""

from __future__ import annotations

import pytest

from trainlab.errors import UserError
from trainlab.sweeps import definition, resuming
from trainlab.sweeps.order import Order
from trainlab.sweeps.queue import Queue

RANGE = {"x": {"low": 0.0, "high": 1.0}}


@pytest.fixture
def made(sweep):
    """A sweep of four trials, all of which wait."""
    tried = sweep(4, method="random", space=RANGE)
    Queue.create(tried.definition, logs=tried.logs).close()
    return tried


def refuse(what):
    raise UserError(what)


def resumed(made, more=0, told=None, **named):
    return resuming.resumed("tiny", told or Order(""), more=more, agreed=refuse, logs=made.logs, **named)


def count(made):
    """Return how many trials were ordered, and how many there are."""
    return definition.load("tiny", made.logs).trials, len(made.trials())


def test_more_trials_are_ordered_and_made(made):
    assert resumed(made, 3)[0].trials == 7
    assert count(made) == (7, 7)


@pytest.mark.parametrize("where", ["before the first change", "between the two", "behind the last one"])
def test_an_order_for_more_trials_that_was_cut_short_is_made_up_for_by_the_same_one(made, monkeypatch, where):
    class Killed(BaseException):
        pass

    def killed(*words, **named):
        raise Killed

    add = Queue.add
    if where == "before the first change":
        monkeypatch.setattr(definition, "extend", killed)
    else:
        monkeypatch.setattr(Queue, "add", killed if where == "between the two" else then_killed(add, killed))
    with pytest.raises(Killed):
        resumed(made, 3)
    monkeypatch.undo()
    if where == "behind the last one":
        assert count(made) == (7, 7), "nothing is left to do"
        return
    _, remarks = resumed(made, 3)
    assert count(made) == (7, 7)
    assert remarks == ["3 trials of an earlier --trials, which was cut short, are made now."] * (
        where == "between the two"
    )


def then_killed(add, killed):
    def both(*words):
        add(*words)
        killed()

    return both


def test_what_was_cut_short_is_made_up_for_without_a_new_order_and_beside_another_one(made):
    definition.extend("tiny", 2, made.logs)
    assert resumed(made)[1] == ["2 trials of an earlier --trials, which was cut short, are made now."]
    assert count(made) == (6, 6)
    definition.extend("tiny", 2, made.logs)
    resumed(made, 5)
    assert count(made) == (13, 13)


def test_a_sweep_that_has_not_begun_gets_more_trials_too(sweep):
    tried = sweep(4, method="random", space=RANGE)
    assert resumed(tried, 2)[0].trials == 6
    assert resumed(tried) == (definition.load("tiny", tried.logs), [])


def test_an_option_that_makes_no_sense_for_the_sweep_is_refused_by_its_name(made):
    for told, at, said in [
        (Order("", module=True), None, "-m: the sweep tiny was made with something else"),
        (Order("", options={"prune": "median"}), None, "prune: the sweep tiny was made"),
        (Order(""), "head", "--at head: the sweep tiny lies in"),
    ]:
        with pytest.raises(UserError, match=said):
            resumed(made, told=told, at=at)


def test_a_sweep_that_somebody_leads_is_left_as_it_is(made):
    held = definition.led("tiny", made.logs)
    with pytest.raises(UserError, match="goes on already"):
        resumed(made, 3)
    held.release()
    assert count(made) == (4, 4)
