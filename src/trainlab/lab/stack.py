"""Which files a lab takes: the stack's, and those of the examples.

They are the files at the root of a checkout; a wheel carries copies of them. Read by setup.py as well, which
builds that wheel and has nothing but Python: so this module imports nothing else.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

HERE = Path(__file__).parent
CARRIED = HERE / "files"  # in a wheel: what lies at the root of a checkout
TEMPLATE = HERE / "template"  # what is a lab's own from the start, written for one that is called my-lab
EXAMPLES = "src/experiments"
_LEFT_OUT = re.compile(
    r"\.whl$|\.pyc$|/__pycache__/|/\.ipynb_checkpoints/"
)  # made here, or too large to hand on


def root() -> Path:
    """Return the folder that holds the files: the checkout, or what the wheel carries."""
    return CARRIED if CARRIED.is_dir() else HERE.parents[2]


def files(root: Path) -> dict[str, Path]:
    """Return the stack's files by their paths below `root`, sorted."""
    lines = (HERE / "stack.txt").read_text().splitlines()
    return _matching(root, [line for line in lines if line and not line.startswith("#")])


def examples(root: Path) -> dict[str, dict[str, Path]]:
    """Return the files of each example by its name: its folder, its notebooks and the sample data.

    An example that imports another one brings that one's files along.
    """
    folders = sorted(path.parent for path in root.glob(f"{EXAMPLES}/*/config.py"))
    code = {folder.name: _matching(root, [f"{EXAMPLES}/{folder.name}/**/*"]) for folder in folders}
    notebooks = {name: path.read_text() for name, path in _matching(root, ["notebooks/*.ipynb"]).items()}
    sample = _matching(root, ["data/sample/*", f"{EXAMPLES}/__init__.py"])
    found = {}
    for name in code:
        needed, asked = set[str](), {name}
        while asked - needed:
            needed |= asked
            texts = [
                path.read_text() for each in needed for path in code[each].values() if path.suffix == ".py"
            ]
            asked = {each for text in texts for each in re.findall(r"experiments\.(\w+)", text)} & code.keys()
        shown = {
            notebook: root / notebook
            for notebook, text in notebooks.items()
            if name in (named := set(re.findall(r"experiments\.(\w+)", text))) and named <= needed
        }
        found[name] = sample | shown | {path: file for each in needed for path, file in code[each].items()}
    return found


def carried(root: Path) -> dict[str, Path]:
    """Return all that a wheel carries: the stack's files and those of every example."""
    return files(root) | {name: path for each in examples(root).values() for name, path in each.items()}


def mode(body: bytes) -> int:
    """Return the mode of a file of the stack: what names an interpreter can be executed."""
    return 0o755 if body.startswith(b"#!") else 0o644


def barrier(folder: Path, name: str) -> str:
    """Return which parent of a lab's file is a link, and so leads elsewhere, or no folder; '' for none."""
    for parent in reversed(Path(name).parents[:-1]):
        path = folder / parent
        is_folder = os.path.isdir(path) and not path.is_symlink()  # noqa: PTH112 - unlike Path's, it never raises
        if os.path.lexists(path) and not is_folder:
            return parent.as_posix()
    return ""


def _matching(root: Path, patterns: list[str]) -> dict[str, Path]:
    paths = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    named = {path.relative_to(root).as_posix(): path for path in paths}
    return {name: named[name] for name in sorted(named) if not _LEFT_OUT.search(f"/{name}")}
