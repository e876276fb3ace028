"""A bundle's place: the same one stays, and a damaged one does not stand in the way of a whole one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from trainlab.serving import bundle
from trainlab.serving.export import placed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def half(folder: Path) -> Path:
    """The same bundle once more, beside its place."""
    shutil.copytree(folder, copy := folder.with_name(".export-1"))
    return copy


def digest_of(folder: Path) -> str:
    return bundle.read(folder).digest


def test_a_bundle_that_is_there_already_stays(folder: Path, half: Path) -> None:
    before = folder.stat().st_ino
    assert placed(half, folder, digest_of(half)).stat().st_ino == before


@pytest.mark.parametrize("file", ["text.onnx", "manifest.json", "more.txt"])
def test_a_damaged_one_is_replaced_and_kept_out_of_sight(folder: Path, half: Path, file: str) -> None:
    (folder / file).write_bytes(b"mine")
    assert placed(half, folder, digest_of(half)) == folder
    assert bundle.read(folder).kind == "nearest"
    (kept,) = folder.parent.glob(".damaged-*")
    assert (kept / file).read_bytes() == b"mine"
