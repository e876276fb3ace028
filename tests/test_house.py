"""The house: which package may import which, no circles, what a file may come to."""

from __future__ import annotations

import ast
import functools
from graphlib import CycleError, TopologicalSorter

import pytest

from project import CHECKOUT

SRC = CHECKOUT / "src"
GROUND = "ground"
# What a room may import besides itself; what is in no room of its own is ground, which imports ground alone.
MAY_IMPORT = {
    GROUND: set(),
    "lab": {GROUND},
    "trackers": {GROUND},
    "run": {GROUND, "trackers"},
    "runs": {GROUND, "trackers", "run"},
    "headless": {GROUND, "run"},
    "hosts": {GROUND, "run", "headless"},
    "training": {GROUND, "trackers", "run"},
    "checks": {GROUND, "run", "runs", "training"},
    "web": {GROUND},
    "serving": {GROUND, "web", "run", "runs"},
    "sweeps": {GROUND, "trackers", "run", "runs", "headless"},
    "board": {GROUND, "web", "run", "runs", "headless", "sweeps", "serving"},
}
# cli imports everything, and the package what it hands on
FREE = {"cli", "experiments", "the package itself"}
# What Run imports when it is asked for alone: Lightning's callbacks, and in processes of torchrun but the
# first, the Run that writes nothing.
LATE = {
    ("trainlab.run.run", "trainlab.training.config"),
    ("trainlab.run.run", "trainlab.training.trainer"),
    ("trainlab.run.run", "trainlab.run.ranks"),
}
LONGEST = 450  # lines of a file


@functools.cache
def imports() -> dict[str, set[str]]:
    """Return, of each module, the modules of ours that it imports anywhere, for its types too."""
    files = {
        ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): file
        for file in SRC.rglob("*.py")
        if "template" not in file.parts  # the start of somebody else's package
    }
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        names = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                named = {f"{node.module}.{each.name}" for each in node.names}
                names |= named & files.keys() or {node.module}
            elif isinstance(node, ast.Import):
                names |= {each.name for each in node.names}
        found[module] = {
            name for name in names & files.keys() if name != module and (module, name) not in LATE
        }
    return found


def room(module: str) -> str:
    first, *rest = module.split(".")
    if first == "experiments":
        return first
    if not rest:
        return "the package itself"
    return rest[0] if (SRC / first / rest[0]).is_dir() else GROUND


def test_no_arrow_runs_upwards():
    assert {room(module) for module in imports()} == MAY_IMPORT.keys() | FREE
    upward = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in sorted(others)
        if (here := room(module)) not in FREE
        if room(other) != here and room(other) not in MAY_IMPORT[here] | {"the package itself"}
    ]
    assert not upward, "\n".join(upward)


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: others for module, others in imports().items() if room(module) != "the package itself"}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_in_the_tool_names_an_experiment():
    names = [folder.name for folder in (SRC / "experiments").iterdir() if (folder / "__init__.py").exists()]
    assert len(names) >= 4
    named = [
        f"{file.relative_to(SRC)}: {name}"
        for file in (SRC / "trainlab").rglob("*.py")
        for name in names
        if f"experiments.{name}" in (text := file.read_text()) or f"experiments import {name}" in text
    ]
    assert not named, "\n".join(named)


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_no_file_is_longer_than_a_reader_s_patience(folder):
    long = {
        str(file.relative_to(CHECKOUT)): lines
        for file in (CHECKOUT / folder).rglob("*.py")
        if (lines := len(file.read_text().splitlines())) > LONGEST
    }
    assert not long


def test_one_lazy_map_alone():
    lazy = [
        str(file.relative_to(SRC)) for file in SRC.rglob("*.py") if "\ndef __getattr__(" in file.read_text()
    ]
    assert lazy == ["trainlab/__init__.py"]
