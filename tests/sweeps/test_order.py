"""What somebody orders, in words or in a file."""

from __future__ import annotations

import pytest

from runs_folder import make, points
from trainlab.errors import UserError
from trainlab.sweeps import order
from trainlab.sweeps.order import Order
from trainlab.sweeps.space import Choice, Range

SCRIPT = """
from trainlab.config import Config

class Settings(Config):
    lr: float = 0.1
    margin: int = 1
    seed: int = 0
    sizes: tuple[int, ...] = ()

Settings.from_command_line()
"""
FILE = """
notebook = "train.py"
goal = "val/loss"
trials = 4
seed = 7
fixed = {sizes = [1, 2]}
space = {margin = [1, 3], lr = {low = 1e-5, high = 1e-3, log = true}}
"""


@pytest.fixture
def define(tmp_path, monkeypatch):
    """Return a function that makes a sweep of words and options, and says what was remarked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)

    def defined(*words, arguments=(), **options):
        said = {key: each for key, each in ({"goal": "val/loss"} | options).items() if each is not None}
        told = Order("train.py").told(words, said, arguments=arguments)
        return order.define(told, tmp_path / "logs")

    return defined


def test_lists_alone_are_a_grid_of_all_combinations(define):
    definition, remarks = define("margin=1,3,5", "lr=0.1,0.2")
    assert (definition.method, definition.trials, definition.mode) == ("grid", 6, "min")
    assert definition.space == {"margin": [1, 3, 5], "lr": [0.1, 0.2]}
    assert remarks == []


def test_a_range_is_searched_by_tpe_with_twenty_trials_and_that_is_said(define, tmp_path):
    definition, remarks = define("margin=1..9", "lr=0.5", arguments=["--fast"])
    assert (definition.method, definition.trials) == ("tpe", 20)
    assert remarks == ["--trials is not given: 20 trials."]
    assert definition.program == str(tmp_path / "train.py")
    assert definition.working_folder == str(tmp_path)
    assert (definition.arguments, definition.fixed) == (["--fast"], {"lr": "0.5"})
    assert definition.name.startswith("train-")


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        ([], {}, "Nothing varies"),
        (["margin=3"], {}, "Nothing varies"),
        (["margin=1,3"], {"trials": 5}, "--trials 5: the grid has 2 combinations"),
        (["margin=1..3"], {"method": "grid"}, "--method grid takes lists alone, and margin is a range"),
        (["margin=1,3"], {"goal": None}, "Which metric is the goal? Say it, such as --goal val/loss."),
        (["margin=1,3"], {"goal": "val/odd"}, "nothing says whether less or more of it is better"),
        (["margin=1,3"], {"seeds": 0}, "--seeds 0: should be greater than 0."),
        (["margin=1,3"], {"seed": -1}, "--seed -1: should be greater than or equal to 0."),
        (["margin=1..3"], {"trials": 0}, "--trials 0: should be greater than 0."),
        (["margin=1,3"], {"prune": "meadian"}, "--prune meadian: should be 'none', 'median'"),
        (["margin=1,3"], {"trials": "many"}, "--trials many: should be a valid integer"),
        (["margin=1,3", "seed=5"], {"seeds": 3}, "--seeds 3 sets the setting seed, which is given too"),
        (["margin=1,3", "resume=last"], {}, "resume: a trial is a new run"),
    ],
)
def test_an_order_that_cannot_be_is_refused_with_a_sentence(define, words, options, said):
    with pytest.raises(UserError) as error:
        define(*words, **options)
    assert said in str(error.value)


def test_several_seeds_need_a_program_that_has_one(define, tmp_path):
    assert define("margin=1,3", seeds=3, seed=4)[0].fixed == {}
    (tmp_path / "train.py").write_text(SCRIPT.replace("seed: int", "sed: int"))
    with pytest.raises(UserError, match="seed: no such parameter"):
        define("margin=1,3", seeds=3)


def test_a_goal_that_earlier_runs_never_logged_is_doubted_and_theirs_named(define, tmp_path):
    last = {"val/loss": {"value": 1.0, "step": 1}, "vitals/memory_gib": {"value": 1.0, "step": 1}}
    make(tmp_path / "logs", "train/a", last=last)
    remarks = define("margin=1,3", goal="val/los", mode="min")[1]
    assert remarks == ["warning: no earlier run of train has logged 'val/los'. Did you mean 'val/loss'?"]
    with pytest.raises(UserError, match=r"Which metric is the goal\?.* Earlier runs have logged: val/loss\."):
        define("margin=1,3", goal=None)


def test_the_direction_is_the_one_that_is_said_before_the_runs_and_theirs_before_the_name_s(define, tmp_path):
    make(
        tmp_path / "logs",
        "train/a",
        last={"val/loss": {"value": 1, "step": 1}},
        directions={"val/loss": "max"},
    )
    assert define("margin=1,3")[0].mode == "max"
    assert define("margin=1,3", mode="min")[0].mode == "min"


def test_a_script_that_cannot_be_checked_is_said_to_be_one(define, tmp_path):
    (tmp_path / "train.py").write_text("import argparse\n")
    assert "can't be checked before it starts" in define("margin=1,3")[1][0]


def test_a_file_is_an_order_and_the_command_line_wins(define, tmp_path):
    (tmp_path / "sweep.toml").write_text(FILE)
    read = order.from_file(tmp_path / "sweep.toml")
    assert read.space == {"margin": Choice((1, 3)), "lr": Range(1e-5, 1e-3, log=True)}
    assert read.options == {"goal": "val/loss", "trials": 4, "seed": 7}
    definition, _ = order.define(read.told(["margin=5", "lr=0..1"], {"trials": 3}), tmp_path / "logs")
    assert (definition.trials, definition.seed) == (3, 7)
    assert definition.fixed == {"sizes": "[1, 2]", "margin": "5"}
    assert definition.space == {"lr": {"low": 0.0, "high": 1.0}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("notebook = 3", "notebook says what is to be trained"),
        ("goal = 'val/loss'", "notebook says what is to be trained"),
        ("notebok = 'news'", "a sweep has no 'notebok'. Did you mean 'notebook'?"),
        ("notebook = 'news'\nspace = [1]", "space is a table"),
        ("notebook = 'news'\nfixed = 'x'", "fixed is a table"),
        ("notebook = 'news'\nfixed = {day = 2026-01-01}", "fixed.day: a date can't be written"),
        ("notebook = 'news'\nspace = {margin = 3}", "One value belongs under fixed"),
        ("notebook = ", "is no TOML"),
        ("a = " + "[" * 5000, "is no TOML"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(tmp_path, text, said):
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(UserError) as error:
        order.from_file(tmp_path / "sweep.toml")
    assert said in str(error.value)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(UserError, match="can't be read: No such file"):
        order.from_file(tmp_path / "sweep.toml")


def test_a_sweep_that_goes_on_is_that_of_the_program_that_is_named(define, tmp_path):
    definition, _ = define("margin=1,3")
    (tmp_path / "other.py").write_text(SCRIPT)
    order.check_same(definition, Order("train.py"))
    with pytest.raises(UserError, match=r"other\.py: the sweep .* was made with something else"):
        order.check_same(definition, Order("other.py"))


def test_a_sweep_that_goes_on_is_told_the_same_or_nothing(define):
    definition, _ = define("margin=1,3", "lr=1e-5..1e-3:log", "sizes=[1]", trials=4)
    for words in ([], ["margin=1,3"], ["lr=1e-5..1e-3:log", "sizes=[1]"]):
        order.check_same(definition, Order("").told(words, {"goal": "val/loss"}))
    for words, options, key in [
        (["margin=1,5"], {}, "margin"),
        (["margin=1..3"], {}, "margin"),
        (["lr=1e-5..1e-2:log"], {}, "lr"),
        (["sizes=[2]"], {}, "sizes"),
        (["other=1"], {}, "other"),
        ([], {"goal": "val/f1"}, "goal"),
    ]:
        with pytest.raises(UserError, match=f"{key}: the sweep .* was made with something else"):
            order.check_same(definition, Order("").told(words, options))


def test_a_misspelt_goal_is_named_with_what_runs_have_logged_though_nothing_says_which_way_is_better(
    define, tmp_path
):
    make(tmp_path / "logs", "train/20260101-000000-a", last=points(val_loss=1.0))
    with pytest.raises(
        UserError, match=r"--mode max. But no earlier run .*'val/los'. Did you mean 'val/loss'"
    ):
        define("margin=1,3", goal="val/los")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fixed = {lr = 0.1}\nspace = {lr = [0.1, 0.2]}", "lr stands under fixed and under space"),
        ("trials = true\nspace = {lr = [0.1, 0.2]}", "--trials True: should be a valid integer"),
        ('seeds = "3"\nspace = {lr = [0.1, 0.2]}', "--seeds '3': should be a valid integer"),
        ("seed = 1.0\nspace = {lr = [0.1, 0.2]}", "--seed 1.0: should be a valid integer"),
        (f"space = {{lr = [0.1, 0.2]}}\nfixed = {{margin = {'[' * 300}{']' * 300}}}", "margin"),
        ('space = {lr = [0.1, 0.2]}\nfixed = {"margin=2" = 3}', "names no setting"),
        (f"space = {{lr = [0.1, 0x{'f' * 9999}]}}", "can't be tried"),
        ("space = {lr = [1979-05-27, 0.2]}", "can't be tried"),
        ("slots = 2\nspace = {lr = [0.1, 0.2]}", "a sweep has no 'slots'"),
    ],
)
def test_what_a_file_can_not_mean_is_refused_with_a_sentence(define, tmp_path, text, said):
    path = tmp_path / "sweep.toml"
    path.write_text(f'notebook = "train.py"\ngoal = "val/loss"\n{text}\n')
    with pytest.raises(UserError) as error:
        order.define(order.from_file(path), tmp_path / "logs")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_function_beside_the_file_is_found_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine_alone.py").write_text("def train(lr: float = 0.1):\n    ...\n")
    path = tmp_path / "there" / "sweep.toml"
    path.write_text('notebook = "mine_alone:train"\ngoal = "val/loss"\nspace = {lr = [0.1, 0.2]}\n')
    monkeypatch.chdir(tmp_path)
    definition, _ = order.define(order.from_file(path), tmp_path / "logs")
    assert definition.module
    assert definition.working_folder == str(tmp_path / "there")
