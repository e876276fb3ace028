"""The check of a space through its program's own settings."""

from __future__ import annotations

import signal
import subprocess
import sys

import nbformat
import psutil
import pytest

from runs_folder import make
from trainlab.errors import UserError
from trainlab.sweeps import checking
from trainlab.sweeps.space import Choice, Range, parse
from waiting import until

SETTINGS = """
from typing import Literal
from pydantic import Field, model_validator
from trainlab.config import Config

class Settings(Config):
    lr: float = Field(1e-3, gt=0)
    margin: int = Field(1, ge=1, le=9)
    width: int = Field(8, multiple_of=8)
    opt: Literal["adam", "sgd"] = "adam"
    flag: bool = False
    low: int = 1
    high: int = 3
    sizes: tuple[int, ...] = (1, 2)
    name: str = ""

    @model_validator(mode="after")
    def _order(self):
        if self.low > self.high:
            raise ValueError("low lies above high")
        return self
"""
BODY = """
import trainlab
raise SystemExit("the script was started")
settings = Settings.from_command_line()
with trainlab.Run("plain", config=settings) as run:
    pass
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Return a function that checks words against a script with settings of its own."""
    (tmp_path / "train.py").write_text(SETTINGS + BODY)
    monkeypatch.chdir(tmp_path)

    def checked(*words, program="train.py", **options):
        return checking.check(program, *parse(words), logs=tmp_path / "logs", **options)

    return checked


def test_values_get_the_types_of_the_settings_class_and_the_script_is_not_started(check):
    found = check(
        "lr=1..3", "margin=1e0..9:2", "opt=adam,sgd", "flag=yes,no", r"sizes=(1\,2),(3\,4)", "name=7"
    )
    assert found.known
    assert found.space == {
        "lr": Range(1.0, 3.0),
        "margin": Range(1, 9, step=2),
        "opt": Choice(("adam", "sgd")),
        "flag": Choice((True, False)),
        "sizes": Choice(("(1,2)", "(3,4)")),
    }
    assert isinstance(found.space["lr"].low, float)
    assert isinstance(found.space["margin"].low, int)
    assert found.fixed == {"name": "7"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["margin=1..10"], "margin=10: should be less than or equal to 9."),
        (["lr=0..1"], "lr=0: should be greater than 0."),
        (["margin=0.5..3"], "margin=0.5: should be a valid integer"),
        (["margin=1..9:0.5"], "margin is a whole number. Expected a whole step."),
        (["width=8..32"], "width=9: should be a multiple of 8."),
        (["opt=adam,sdg"], "opt=sdg: should be 'adam' or 'sgd'."),
        (["flag=0..1"], "a range is for numbers, and flag is true or false."),
        (["name=1..2"], "a range is for numbers, and name is text."),
        (["mragin=1,2"], "mragin: no such parameter. Did you mean 'margin'?"),
        (["margin=1,2", "opt=adma"], "opt=adma: should be 'adam' or 'sgd'."),
        (["lr=1e-5,0.00001"], "lr: 1e-05 stands twice in the list, as 0.00001 too."),
        (["low=1,3", "high=2,4"], "with low=3 high=2: low lies above high."),
        (["low=1..9", "high=5..9"], "with low=9 high=5: low lies above high."),
        (["low=4,5"], "with low=4: low lies above high."),
    ],
)
def test_what_the_settings_refuse_is_refused_before_anything_starts(check, words, said):
    with pytest.raises(UserError) as error:
        check(*words)
    assert said in str(error.value)


def test_two_values_that_go_together_alone_are_no_mistake(check):
    assert check("low=4,5", "high=5,6").space == {"low": Choice((4, 5)), "high": Choice((5, 6))}


def test_settings_of_another_module_are_found_and_torch_stays_out_of_this_process(check, tmp_path):
    (tmp_path / "mysettings.py").write_text(f"import torch\n{SETTINGS}")
    (tmp_path / "other.py").write_text(
        "import argparse\nimport mysettings as own\ns = own.Settings.from_command_line()\n"
    )
    before = "torch" in sys.modules
    with pytest.raises(UserError, match="margin=10: should be less"):
        check("margin=1,10", program="other.py")
    assert ("torch" in sys.modules) == before


def test_a_script_that_parses_by_itself_is_taken_at_its_word(check, tmp_path):
    (tmp_path / "other.py").write_text("import argparse\nargparse.ArgumentParser().parse_args()\n")
    found = check("lr=1,1e-3,x", "n=1..5", "d=1.0..5", program="other.py")
    assert not found.known
    assert found.space == {"lr": Choice((1, 0.001, "x")), "n": Range(1, 5), "d": Range(1.0, 5.0)}


def test_a_script_that_ignores_its_arguments_is_refused(check, tmp_path):
    (tmp_path / "deaf.py").write_text("print(1)\n")
    with pytest.raises(UserError, match=r"deaf\.py does not look at its arguments"):
        check("lr=1,2", program="deaf.py")


def test_a_notebook_tells_by_its_tagged_cell(check, tmp_path):
    cell = nbformat.v4.new_code_cell(
        'lr = 0.1\nepochs = 3\nname = "x"\nwhat = None', metadata={"tags": ["parameters"]}
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "mine.ipynb")
    found = check("lr=1..2", "epochs=1..4", "what=1,x", program="mine.ipynb")
    assert found.space == {"lr": Range(1.0, 2.0), "epochs": Range(1, 4), "what": Choice((1, "x"))}
    assert isinstance(found.space["lr"].low, float)
    for words, said in [
        (["epochs=1.5..3"], r"epochs=1\.5: should be a valid integer.* Its default is 3"),
        (["name=1..3"], "a range is for numbers, and name is text"),
        (["lrr=1,2"], "lrr: no such parameter. Did you mean 'lr'?"),
    ]:
        with pytest.raises(UserError, match=said):
            check(*words, program="mine.ipynb")


def test_a_function_tells_by_its_parameters(check, tmp_path):
    (tmp_path / "mine.py").write_text("def train(lr: float = 1e-3, epochs=3, *, opt='adam'): ...\n")
    found = check("lr=1..2", "epochs=1..4", program="mine:train", module=True)
    assert found.space == {"lr": Range(1.0, 2.0), "epochs": Range(1, 4)}
    with pytest.raises(UserError, match="lrr: no such parameter"):
        check("lrr=1,2", program="mine:train", module=True)
    with pytest.raises(UserError, match="module 'mine' has no attribute 'rain'"):
        check("lr=1,2", program="mine:rain", module=True)


def test_a_path_is_made_absolute_because_a_trial_may_start_elsewhere(check, tmp_path):
    (tmp_path / "train.py").write_text(
        "from typing import Annotated\nfrom trainlab.config import Config, path_or\n"
        "class Settings(Config):\n    data: Annotated[str, path_or('sample')] = 'sample'\n    x: int = 1\n"
        "Settings.from_command_line()\n"
    )
    (tmp_path / "mine.tsv").touch()
    assert check("x=1,2", "data=mine.tsv").fixed == {"data": str(tmp_path / "mine.tsv")}


def test_earlier_runs_tell_their_tags_and_which_way_they_improve(check, tmp_path):
    make(
        tmp_path / "logs", "plain/a", last={"val/odd": {"value": 1, "step": 1}}, directions={"val/odd": "max"}
    )
    make(tmp_path / "logs", "other/b", last={"val/else": {"value": 1, "step": 1}})
    found = check("margin=1,3")
    assert found.tags == ["val/odd"]
    assert found.directions == {"val/odd": "max"}


def test_settings_that_end_python_are_told_as_such(check, tmp_path):
    (tmp_path / "train.py").write_text(
        "import os\nimport ends\nargv = 1\n" + SETTINGS + "Settings.from_command_line()"
    )
    (tmp_path / "ends.py").write_text("import os\nos._exit(3)\n")
    with pytest.raises(UserError, match="can't be read: their check ended with exit code 3"):
        check("margin=1,3")


def test_ctrl_c_ends_the_check_and_what_it_has_started(tmp_path):
    program = tmp_path / "slow.py"
    program.write_text(
        "import os, pathlib, time\nclass Slow:\n"
        "    pathlib.Path('started').write_text(str(os.getpid()))\n    time.sleep(600)\n"
        "Slow.from_command_line()\n"
    )
    code = (
        "from trainlab.sweeps import checking, space\n"
        f"checking.check({str(program)!r}, *space.parse(['x=1,2']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        number = int(
            until(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text(), "x")
        )
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        assert error.rstrip().endswith("KeyboardInterrupt")
        assert error.count("Traceback") == 1, "that of the child would stand on the terminal, too"
        assert not psutil.pid_exists(number)
    finally:
        process.kill()
