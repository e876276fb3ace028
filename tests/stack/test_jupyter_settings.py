"""The server's own kernel manager, as `jupyter/jupyter_server_config.py` defines it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tornado.httpserver import HTTPServer
from traitlets.config import Config

from project import CHECKOUT
from trainlab.run import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

SAVE = 12.0  # seconds: longer than the 10.5 that a cell gets that is not saving
SLOW_SAVE = f"""
import time, trainlab
from pathlib import Path
from trainlab.run import checkpoint

class Slow:
    def keys(self):
        return ["step"]
    def __getitem__(self, key):
        for _ in range({SAVE * 100:.0f}):
            time.sleep(0.01)
        return 7

with trainlab.Run("slow", logs=Path("logs"), monitor=False) as run:
    checkpoint.save(Slow(), run.checkpoints / "step-00000007.ckpt")
"""

START = """
import runpy, subprocess, sys
from traitlets.config import Config
runpy.run_path(sys.argv[1], {"get_config": Config})
kernel = "import sys, warnings; warnings.warn(sys.argv[1])"
subprocess.run([sys.executable, "-c", kernel, sys.argv[2]], check=True)
"""


@pytest.fixture(autouse=True)
def other_servers() -> Iterator[None]:
    """Leave tornado as it was: the settings put Jupyter's door into the place of its own server."""
    before = HTTPServer._save_configuration()
    yield
    HTTPServer._restore_configuration(before)


def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the server reads."""
    monkeypatch.setattr("builtins.get_config", Config, raising=False)
    file = CHECKOUT / "jupyter" / "jupyter_server_config.py"
    names: dict[str, Any] = {"__file__": str(file)}
    exec(compile(file.read_text(), file, "exec"), names)
    return names


async def shut_down_while(manager: Any, folder: Path, code: str, at_work: Any) -> float:
    """Execute a cell, shut its kernel down in the midst; return how many seconds that took."""
    kernel = await manager.start_kernel(kernel_name="python3", path=str(folder))
    client = manager.get_kernel(kernel).client()
    client.start_channels()
    await client.wait_for_ready(timeout=120)
    client.execute(code)
    end = time.monotonic() + 120
    while not at_work():
        assert time.monotonic() < end, "the cell never got there"
        await asyncio.sleep(0.05)
    client.stop_channels()
    since = time.monotonic()
    await manager.shutdown_kernel(kernel)
    return time.monotonic() - since


@pytest.mark.slow
def test_a_kernel_that_is_shut_down_ends_the_save_that_it_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    manager = settings(monkeypatch)["PatientKernels"](root_dir=str(tmp_path))
    saving = lambda: list(tmp_path.glob("logs/slow/*/checkpoints/.*.tmp"))  # noqa: E731
    seconds = asyncio.run(shut_down_while(manager, tmp_path, SLOW_SAVE, saving))
    (path,) = tmp_path.glob("logs/slow/*/checkpoints/*.ckpt")
    assert checkpoint.load(path) == {"step": 7}
    assert seconds > SAVE / 2
    (record,) = tmp_path.glob("logs/slow/*/run.json")
    assert '"status": "interrupted"' in record.read_text()


def test_a_server_stops_where_our_code_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = settings(monkeypatch)["patience"]
    monkeypatch.setitem(sys.modules, "trainlab.run", None)  # as an import error in src/ would
    over = patience(os.getpid(), 0.05, True)
    assert not over()
    time.sleep(0.1)
    assert over()


@pytest.mark.parametrize(("text", "shown"), [("IProgress not found. Please update", False), ("mine", True)])
def test_kernels_do_not_warn_of_widgets_that_are_not_installed(text, shown, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    settings = str(CHECKOUT / "jupyter" / "jupyter_server_config.py")
    done = subprocess.run(
        [sys.executable, "-c", START, settings, text], capture_output=True, text=True, check=True
    )
    assert (text in done.stderr) is shown
