"""Bundles that nobody trained: of small files, and of an ONNX file written field by field."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnx_files
from trainlab.serving import bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose digest is trusted: an ONNX file, settings, a card."""
    folder = tmp_path / "models" / "mine-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "text.onnx").write_bytes(onnx_files.identity())
    (folder / "settings.json").write_text('{"texts": 2}')
    (folder / "card.json").write_text('{"run": "mine"}')
    bundle.trust(bundle.seal(folder, "nearest"), folder.name)
    return folder
