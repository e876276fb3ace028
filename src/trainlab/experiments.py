"""The experiments that can be checked before a training, by name."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.training.checks.subject import Subject

# Each names a function that makes a subject of the experiment's settings: {} means settings small enough for
# all checks together to take a minute or two.
SUBJECTS = {"news": "trainlab.news.checks:subject"}


def known(name: str) -> str:
    """Return the name; raise UserError for an experiment that there is none of, with the nearest name."""
    if name not in SUBJECTS:
        names = ", ".join(sorted(SUBJECTS))
        raise UserError(f"{name}: no such experiment.{nearest(name, SUBJECTS)} Known: {names}.")
    return name


def subject(name: str, settings: Mapping[str, Any]) -> Subject:
    """Return what is checked of an experiment under these settings.

    Raises UserError for an unknown experiment, and for settings that it can't take.
    """
    module, _, function = SUBJECTS[known(name)].partition(":")
    with warnings.catch_warnings():  # our bars are plain text, and need no widgets
        warnings.filterwarnings("ignore", "IProgress not found")
        return getattr(import_module(module), function)(settings)
