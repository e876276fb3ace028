"""What JupyterLab's settings do to its kernels."""

from __future__ import annotations

import subprocess
import sys

import pytest

from project import CHECKOUT

START = """
import runpy, subprocess, sys
from traitlets.config import Config
runpy.run_path(sys.argv[1], {"get_config": Config})
kernel = "import sys, warnings; warnings.warn(sys.argv[1])"
subprocess.run([sys.executable, "-c", kernel, sys.argv[2]], check=True)
"""


@pytest.mark.parametrize(("text", "shown"), [("IProgress not found. Please update", False), ("mine", True)])
def test_kernels_do_not_warn_of_widgets_that_are_not_installed(text, shown, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    settings = str(CHECKOUT / "jupyter" / "jupyter_server_config.py")
    done = subprocess.run(
        [sys.executable, "-c", START, settings, text], capture_output=True, text=True, check=True
    )
    assert (text in done.stderr) is shown
