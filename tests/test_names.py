"""Names: a test file is called after a module, and what a text of the checkout names is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from project import CHECKOUT

SOURCE = CHECKOUT / "src"
OTHERWISE = {  # test files that are called after no module
    "test_docs": "README.md and docs/",
    "test_faults": "processes and disks, across modules",
    "test_groups": "tests/support/groups.py",
    "test_house": "all of src/",
    "test_names": "all texts",
    "test_notebooks": "notebooks/",
    "test_package": "the wheel",
    "test_security_page": "SECURITY.md",
}
TEXTS = {".py", ".md", ".ipynb", ".sh", ".yml", ""}
IMPORTS = re.compile(r"\bfrom ((?:trainlab|experiments)[\w.]*) import ([\w ,]+)")
DOTTED = re.compile(
    r"(?<![\w./-])((?:trainlab|experiments)(?:\.[a-z_]+)+)\.([a-z][a-z_]*)\b(?![\w(/-])"
)  # of modules alone
FILES = re.compile(r"(?<![\w./])(?:src|tests|trainlab|experiments)/[\w/]+\.py\b")


def is_there(module: str, name: str) -> bool:
    """Say whether a module, or a package, holds a submodule or any word of this name."""
    place = SOURCE.joinpath(*module.split("."))
    code = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if (place / name).is_dir() or (place / f"{name}.py").is_file():
        return True
    return code.is_file() and re.search(rf"\b{name}\b", code.read_text()) is not None


def missing(text: str) -> list[str]:
    """Return what a text imports, or names as a file, and is not there."""
    text = text.replace("[.]", ".")  # as a pattern of the shell's has it
    imported = DOTTED.findall(text) + [
        (module, name.split()[0])
        for module, names in IMPORTS.findall(text)
        for name in names.split(",")
        if name.strip()
    ]
    files = [
        file
        for file in FILES.findall(text)
        if not any((CHECKOUT / top / file).exists() for top in ("", "src"))
    ]
    return files + [f"from {module} import {name}" for module, name in imported if not is_there(module, name)]


def test_every_module_and_file_that_a_text_names_is_there() -> None:
    """Python itself finds a wrong import, but not in a script within a string, a `try` or a comment."""
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=CHECKOUT, text=True).split("\0")
    paths = [CHECKOUT / name for name in listed if Path(name).suffix in TEXTS]
    texts = {path: path.read_text(errors="replace") for path in paths if path.is_file()}
    assert len(texts) > 100
    assert {str(path): wrong for path, text in texts.items() if (wrong := missing(text))} == {}


def mirrors(test: Path) -> bool:
    """Say whether test_MODULE.py, or test_MODULE_TOPIC.py, lies as its module, or package, does in src/."""
    tests = CHECKOUT / "tests"
    folder = test.parent.relative_to(tests)
    place = SOURCE / folder if folder.parts[:1] == ("experiments",) else SOURCE / "trainlab" / folder
    named = f"{test.stem.removeprefix('test_')}_"
    return any(named.startswith(f"{each.stem}_") for each in [place, *place.glob("[!_]*")])


def test_a_test_file_is_called_after_a_module() -> None:
    """Those in tests/stack are of the shell's scripts and of the services, and go by what they do."""
    tests = [each for each in (CHECKOUT / "tests").rglob("test_*.py") if each.parent.name != "stack"]
    assert [
        str(each.relative_to(CHECKOUT)) for each in tests if not mirrors(each) and each.stem not in OTHERWISE
    ] == []
