"""The wheel of trainlab that a lab carries."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from project import CHECKOUT
from trainlab.errors import UserError
from trainlab.lab import stack, wheel

if TYPE_CHECKING:
    from pathlib import Path

SRC = "src"  # of a lab


def test_the_same_package_gives_the_same_wheel_in_every_process() -> None:
    code = "import zlib; from trainlab.lab import wheel; print(zlib.crc32(wheel.content()[1]))"
    found = {
        subprocess.check_output([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed})
        for seed in "1234"
    }
    assert len(found) == 1


def test_it_installs_and_makes_a_lab_with_the_same_files(tmp_path: Path) -> None:
    name, body = wheel.content()
    (tmp_path / name).write_bytes(body)
    place = tmp_path / "place"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", place]
    subprocess.run([*pip, tmp_path / name], check=True)
    script = (
        "import sys; sys.path.insert(0, 'place'); sys.argv = ['trainlab', 'new', 'lab', '--with', 'news']\n"
    )
    script += "import trainlab.cli; assert 'place' in trainlab.cli.__file__; trainlab.cli.main()"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    for each, path in (stack.files(CHECKOUT) | stack.examples(CHECKOUT)["news"]).items():
        assert (tmp_path / "lab" / each).read_bytes() == path.read_bytes(), each
    assert (tmp_path / "lab/jupyter/wheels" / name).is_file(), "so that it can make a lab in its turn"


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "trainlab-1-py3-none-any.whl"
    broken.write_text("no archive")
    with pytest.raises(UserError, match="can't be read as a wheel"):
        wheel.stack_of(broken)


@pytest.mark.parametrize("name", ["trainlab/lab/files/stack/verb", "trainlab/lab/stack.txt"])
def test_a_wheel_that_carries_too_much_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "trainlab-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(30_000_000))
    with pytest.raises(UserError, match="it is not ours"):
        wheel.stack_of(path)


def test_a_path_out_of_the_lab_is_not_taken_from_a_wheel(tmp_path: Path) -> None:
    path = tmp_path / "trainlab-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("trainlab/lab/stack.txt", "stack/**/*\nMakefile\n")
        for name in (
            "stack/verb",
            "stack/../../outside",
            "stack//deep",
            "stack/.git/config",
            "stack/\x1b[2J",
            "/etc/passwd",
            f"{SRC}/mine.py",
        ):
            archive.writestr(f"trainlab/lab/files/{name}", name)
    assert wheel.stack_of(path) == {"stack/verb": b"stack/verb"}


def test_an_entry_that_cannot_be_unpacked_is_said(tmp_path: Path) -> None:
    path = tmp_path / "trainlab-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("trainlab/lab/stack.txt", "stack/**/*\n")
    body = bytearray(path.read_bytes())
    at = body.index(b"PK\x01\x02")
    body[at + 8] |= 1  # says that it is encrypted
    body[6] |= 1
    path.write_bytes(body)
    with pytest.raises(UserError, match="can't be read as a wheel"):
        wheel.stack_of(path)
