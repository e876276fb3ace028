"""Where runs go: into the checkout, or, where trainlab is installed, into the folder in which one starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlab import paths

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_installed_the_runs_of_a_folder_lie_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRAINLAB_ROOT", "TRAINLAB_LOGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "__file__", "/env/lib/python3.11/site-packages/trainlab/paths.py")
    assert paths.logs() == tmp_path / "logs"
    monkeypatch.setattr(paths, "__file__", "/clone/src/trainlab/paths.py")
    assert str(paths.logs()) == "/clone/logs"
