"""The package as `pip install trainlab` brings it: where there is no checkout, and no torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from project import CHECKOUT, copy_checkout

pytestmark = pytest.mark.slow

MOST = 250  # MB that `pip install trainlab` brings into an empty environment
ABSENT = ("torch", "tensorboard", "IPython", "ipykernel", "altair", "sklearn", "lightning", "transformers")


PYTHON_3_13 = """
FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends git procps python3 python3-venv
"""
FOLDERS = "tests/run tests/runs tests/headless tests/lab tests/test_paths.py tests/test_secrets.py"
# tests in them that need torch, a tracker or JupyterLab, which are not installed there
LEFT_OUT = "writes_itself|killed_while_jupyter|mlflow|unknown_tracker|our_notebooks|somebody_elses_writer"
IN_CONTAINER = f"""
set -e
python3 -m venv /tmp/env
/tmp/env/bin/pip install -q "$(echo /dist/*.whl)[compare,notebook]" \\
  huggingface-hub matplotlib pytest pytest-xdist 'setuptools>=77' 'tensorboard>=2.21'
cd /tmp && /tmp/env/bin/python -c 'import sys, trainlab; print(sys.version, trainlab.__file__)'
cp -r /tree /tmp/tree && cd /tmp/tree
git init -q && git add -A && git -c user.name=me -c user.email=me@example.org commit -qm all
/tmp/env/bin/pip install -q --no-deps --no-build-isolation --no-index -e .  # runs name its commit
/tmp/env/bin/python -m pytest -q -n 2 -p no:cacheprovider -m 'not docker and not browser and not slow' \\
  -k 'not ({LEFT_OUT.replace("|", " or ")})' {FOLDERS}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, made with what is installed."""
    source, place = copy_checkout(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(place), str(source)], check=True, capture_output=True)
    (made,) = place.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def bin(wheel, tmp_path_factory) -> Path:
    """The commands of an environment with the package and without any extra."""
    place = tmp_path_factory.mktemp("env")
    venv.create(place, with_pip=True)
    subprocess.run([place / "bin" / "pip", "install", "-q", "--compile", wheel], check=True)
    return place / "bin"


def run(*words, where: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command that sees nothing of this checkout."""
    hidden = ("TRAINLAB_", "PYTHON", "VIRTUAL_ENV")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    done = subprocess.run(
        list(map(str, words)), cwd=where, env=clean, text=True, capture_output=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def project(tmp_path) -> Path:
    """Somebody's empty folder with the plain loop of docs/loop.md in it."""
    loops = re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs/loop.md").read_text(), re.DOTALL)
    (tmp_path / "script.py").write_text(next(each for each in loops if 'Run("mine", vars(args))' in each))
    return tmp_path


def test_the_wheel_holds_the_tool_alone_and_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        told = Parser().parsestr(
            content.read(next(each for each in names if each.endswith("METADATA"))).decode()
        )
    assert {each.partition("/")[0].partition("-")[0] for each in names} == {"trainlab"}
    assert {"trainlab/lab/files/Makefile", "trainlab/lab/template/pyproject.toml"} <= set(names)
    assert "trainlab/runs/compare/report.html" in names
    assert any(each.endswith("/LICENSE") for each in names)
    known = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert (told["Name"], told["Version"]) == ("trainlab", known["version"])
    assert set(told["Requires-Python"].split(",")) == set(known["requires-python"].split(","))
    assert told["License-Expression"] == "MIT"
    assert set(told.get_all("Provides-Extra", [])) == set(known["optional-dependencies"])
    base = [each for each in told.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert len(base) == len(known["dependencies"])
    assert not [each for each in base if "==" in each]


def test_the_base_brings_none_of_the_large_packages_and_stays_small(bin, tmp_path):
    code = f"from importlib.util import find_spec; print([each for each in {ABSENT} if find_spec(each)])"
    assert run(bin / "python", "-c", code, where=tmp_path).stdout.strip() == "[]"
    venv.create(tmp_path / "bare", with_pip=True)
    whole, bare = (
        int(run("du", "-sm", place, where=tmp_path).stdout.split()[0])
        for place in (bin.parent, tmp_path / "bare")
    )
    print(f"the environment takes {whole} MB, {whole - bare} of them for the package and what it needs")
    assert whole - bare < MOST


def test_a_script_is_recorded_run_headless_and_found_in_the_table(bin, project):
    first = run(bin / "python", "script.py", where=project)
    assert f"made {project / 'logs'} for runs" in first.stderr
    second = run(bin / "trainlab", "run", "script.py", "lr=0.1", where=project)
    assert "made" not in second.stderr
    shown = run(bin / "trainlab", "runs", where=project).stdout
    assert [line.split()[1] for line in shown.splitlines()[1:]] == ["finished", "finished"]
    code = "import trainlab; print(trainlab.__version__, sorted(trainlab.table()['config.lr']))"
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    told = run(bin / "python", "-c", code, where=project).stdout
    assert told.strip() == f"{version} [0.1, 0.3]"
    records = [path.read_text() for path in project.glob("logs/mine/*/run.json")]
    assert [f'"trainlab": "{version}"' in each for each in records] == [True, True]
    doctor = run(bin / "trainlab", "doctor", where=project).stdout
    assert "error" not in doctor


def test_histograms_texts_and_embeddings_are_written_without_torch(bin, tmp_path):
    code = (
        "import numpy as np, trainlab\n"
        "with trainlab.Run('mine') as run:\n"
        "    run.log_histogram('h', np.arange(5.0), 1)\n"
        "    run.log_embedding('e', np.eye(3)); run.log_text('t', 'x', 1)\n"
    )
    run(bin / "python", "-c", code, where=tmp_path)
    (file,) = tmp_path.glob("logs/mine/*/*tfevents*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = EventAccumulator(str(file)).Reload().Tags()
    assert (tags["histograms"], tags["tensors"]) == (["h"], ["t/text_summary"])
    assert [path.name for path in tmp_path.glob("logs/mine/*/*.pbtxt")] == ["projector_config.pbtxt"]


def test_what_an_extra_lacks_is_one_sentence_and_code_2(bin, project):
    (project / "mine.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    (project / "model.py").write_text("import torch")
    for words, extra in [(("run", "mine.ipynb"), "notebook"), (("check", "model:make"), "lightning")]:
        told = run(bin / "trainlab", *words, where=project, code=2).stderr
        assert told.count("\n") == 1
        assert f'which is not installed: pip install "trainlab[{extra}]"' in told
    run(bin / "python", "script.py", where=project)
    told = run(bin / "trainlab", "runs", "report", "-o", "page.html", where=project, code=2).stderr
    assert 'pip install "trainlab[compare]"' in told


def test_from_python_s_own_folder_no_run_starts(bin, project):
    (place,) = bin.parent.glob("lib/python3*/site-packages")
    told = run(bin / "trainlab", "run", project / "script.py", where=place, code=2).stderr
    assert "inside Python's own folder" in told
    assert not (place / "logs").exists()


@pytest.mark.docker
def test_what_needs_no_torch_passes_on_python_3_13(wheel, tmp_path):
    tree = copy_checkout(tmp_path / "tree")
    image = "trainlab-python-3.13"
    build = ["docker", "build", "-q", "--network", "host", "-t", image, "-"]
    subprocess.run(build, input=PYTHON_3_13, text=True, check=True)
    given = [word for name in ("PIP_INDEX_URL", "PIP_CERT") if name in os.environ for word in ("-e", name)]
    mounts = ["-v", f"{tree}:/tree:ro", "-v", f"{wheel.parent}:/dist:ro"]
    command = ["docker", "run", "--rm", "--init", "--network", "host", *given, *mounts, image]
    done = subprocess.run([*command, "bash", "-c", IN_CONTAINER], text=True, capture_output=True, check=False)
    print(done.stdout[-20000:], done.stderr[-5000:])
    assert done.returncode == 0
    assert done.stdout.startswith("3.13")
    assert "/tmp/env/lib/python3.13/site-packages/trainlab" in done.stdout
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 500
