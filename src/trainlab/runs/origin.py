"""Whose code a run is of: a script's, a notebook's, or trainlab's own."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

OURS = Path(__file__).parents[1]  # the folder of the package
_INSTALLED = {"site-packages", "dist-packages"}  # folders of other people's packages


def of_caller() -> Path | None:
    """Return the file of the innermost code that is neither trainlab's nor installed.

    Of what was typed into a notebook it is the notebook, or its folder, and the working folder elsewhere;
    for the command `trainlab` alone it is trainlab. None where there is only other people's code.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_file() and not _is_installed(file):
            return file
        if frame.f_globals.get("__name__") == "__main__" and not file.is_file():  # a cell, `python -c`
            return _typed(frame)
        frame = frame.f_back
    main = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "")
    return OURS if main.stem == "trainlab" or main.is_relative_to(OURS) else None


def _is_installed(file: Path) -> bool:
    """Tell whether a file is trainlab's, Python's or an installed package's, a package's command included."""
    places = (OURS, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "scripts")))
    return any(map(file.is_relative_to, places)) or not _INSTALLED.isdisjoint(file.parts)


def _typed(frame: FrameType) -> Path:
    """Return the notebook as VS Code or Jupyter name it, and the working folder where nobody does."""
    told = frame.f_globals.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    if told and "ipykernel" in sys.modules and Path(told).parent.is_dir():
        return Path(told)
    return Path.cwd()
