"""A notebook's settings class: whose it may be, and what it makes of the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from project import CHECKOUT
from trainlab import paths
from trainlab.errors import UserError
from trainlab.headless import launcher, notebook
from trainlab.headless.parameters import settings_class

SETTINGS = """
from pydantic import Field
from trainlab.config import Config
from trainlab.errors import UserError

class Settings(Config):
    margin: float = Field(3.0, gt=0)
    epochs: int = 1
    data: str = "sample"
    seed: int = 0
    size: tuple[int, int] = (1, 2)
    raw: bytes = b""

    def preflight(self):
        if self.data == "missing":
            raise UserError("data=missing: no such file.")
"""


@pytest.fixture
def settings(here, monkeypatch):
    """A notebook that names its settings class, which lies beside it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "its_settings", raising=False)
    (here.root / "notebooks" / "its_settings.py").write_text(SETTINGS)
    here.notebook("named", "1", parameters="epochs = 5\nother = object()", config="its_settings:Settings")
    return here


def test_a_path_of_the_host_s_in_a_parameter_is_told_where_the_container_can_see_it(settings, monkeypatch):
    monkeypatch.setattr(paths, "in_stack_container", lambda: True)
    (settings.root / "notebooks" / "its_settings.py").write_text(
        SETTINGS.replace('== "missing"', "[0] == '/'")
    )
    with pytest.raises(UserError, match="no such file") as error:
        launcher.run("named", ["data=/home/me/news.tsv"])
    assert f"into the project's data/ and name it {settings.root / 'data' / 'news.tsv'}" in str(error.value)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("margin=-1", "margin=-1: should be greater than 0."),
        ("margn=1", "Did you mean 'margin'?"),
        ("data=missing", "data=missing: no such file."),
    ],
)
def test_the_settings_class_checks_values_before_anything_is_made(settings, word, told):
    with pytest.raises(UserError) as error:
        launcher.run("named", [word])
    assert told in str(error.value)
    assert list((settings.root / "logs").iterdir()) == []


MARK = "import pathlib\npathlib.Path(__file__).with_suffix('.executed').touch()\n"


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("elsewhere:Settings", "neither trainlab's nor a file in"),
        ("elsewhere.inside:Settings", "neither trainlab's nor a file in"),
        ("os:system", "neither trainlab's nor a file in"),
        ("trainlab.nothing:Settings", "neither trainlab's nor a file in"),
        ("beside:Missing", "has no class 'Missing'"),
        ("broken:Settings", "invalid syntax"),
        ("this:Settings", "another module 'this'"),
        ("its_settings:UserError", "no trainlab.config.Config"),
        *((each, "expected 'module:Class'") for each in ("beside", "beside:", "../beside:A", "beside:A.b")),
        *((each, "expected 'module:Class'") for each in (5, ["beside:A"])),
    ],
)
def test_metadata_name_nothing_but_modules_of_ours_or_beside_the_notebook(
    settings, monkeypatch, named, told, tmp_path_factory
):
    other = tmp_path_factory.mktemp("other")
    (other / "elsewhere").mkdir()
    monkeypatch.syspath_prepend(str(other))
    notebooks = settings.root / "notebooks"
    beside = (notebooks / "beside.py", notebooks / "this.py", other / "elsewhere" / "inside.py")
    for file in (*beside, other / "elsewhere" / "__init__.py"):
        file.write_text(f"{MARK}class Settings: pass\n")
    (notebooks / "broken.py").write_text("class Settings(:")
    settings.notebook("named", "1", config=named)
    with pytest.raises(UserError) as error:
        launcher.run("named")
    assert told in str(error.value)
    assert list((settings.root / "logs").iterdir()) == []
    assert [*settings.root.rglob("*.executed"), *other.rglob("*.executed")] == []


def test_a_settings_class_may_lie_below_the_project_s_src(settings):
    package = settings.root / "src/its_lab"
    package.mkdir(parents=True)
    (package / "more.py").write_text("from its_settings import Settings")
    settings.notebook("named", "1", config="its_lab.more:Settings")
    with pytest.raises(UserError, match="margin=-1: should be greater than 0"):
        launcher.run("named", ["margin=-1"])


def test_a_settings_class_may_lie_in_a_package_beside_the_notebook(settings, monkeypatch):
    package = settings.root / "notebooks" / "its_package"
    package.mkdir()
    (package / "more.py").write_text("try:\n    from its_settings import Settings\nexcept ImportError: raise")
    monkeypatch.setattr(launcher, "start", lambda *_: subprocess.Popen(["true"]))
    settings.notebook("named", "1", config="its_package.more:Settings")
    assert launcher.run("named", ["margin=5"], detach=True) == 0


def test_the_command_line_goes_before_the_notebook_and_the_notebook_before_the_default(settings, monkeypatch):
    monkeypatch.setattr(launcher, "start", lambda *_: subprocess.Popen(["true"]))
    assert launcher.run("named", ["margin=5"], seed=4, detach=True) == 0
    record = settings.record()
    assert record["config"] == {
        **{"margin": 5.0, "epochs": 5, "data": "sample", "seed": 4},
        **{"size": [1, 2], "raw": "b''"},
    }
    assert record["seed"] == 4
    assert settings.folder().name.endswith("-margin5-seed4")
    cell = settings.executed().cells[1]
    assert cell.metadata.tags == ["injected-parameters"]
    assert "margin = 5.0" in cell.source
    assert "epochs" not in cell.source


def test_settings_of_a_class_reach_the_notebook_as_python_has_them(settings, monkeypatch):
    monkeypatch.setattr(launcher, "start", lambda *_: subprocess.Popen(["true"]))
    assert launcher.run("named", ["size=(3, 4)"], detach=True) == 0
    assert "size = (3, 4)" in settings.executed().cells[1].source
    assert settings.record()["config"]["size"] == [3, 4]


@pytest.mark.parametrize("name", ["news", "article", "captions", "sentiment", "attention", "training"])
def test_the_settings_of_our_notebooks_are_those_of_an_experiment(name):
    path = CHECKOUT / "notebooks" / f"{name}.ipynb"
    assert settings_class(notebook.read(path), path.parent).__module__.startswith("experiments.")
