"""The experiments that can be checked before a training, by name."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import paths
from trainlab.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.checks.subject import Subject

# Each names a function that makes a subject of the experiment's settings: {} means settings small enough for
# all checks together to take a minute or two.
SUBJECTS = {name: f"experiments.{name}.checks:subject" for name in ("captions", "news", "sentiment")}


def known(name: str) -> str:
    """Return the `module:function` behind a name, or behind one's own `module:function`.

    Raises UserError for an experiment that there is none of, with the nearest name.
    """
    if name not in SUBJECTS and ":" not in name:
        names = ", ".join(sorted(SUBJECTS))
        raise UserError(
            f"{name}: no such experiment.{nearest(name, SUBJECTS)} Known: {names}; or your module:function."
        )
    return SUBJECTS.get(name, name)


def subject(name: str, settings: Mapping[str, Any]) -> Subject:
    """Return what is checked of an experiment under these settings.

    `name` may also be a `module:function` of one's own, looked for beside the notebooks and in the working
    folder. Raises UserError for an unknown experiment, and for settings that it can't take.
    """
    module, _, function = known(name).partition(":")
    sys.path += [each for each in (str(paths.notebooks()), str(Path.cwd())) if each not in sys.path]
    try:
        with warnings.catch_warnings():  # our bars are plain text, and need no widgets
            warnings.filterwarnings("ignore", "IProgress not found")
            make = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        if name in SUBJECTS:
            raise
        raise UserError(f"{name}: {error}. Expected module:function that returns a Subject.") from error
    return make(settings)
