"""Fourteen checks of a Lightning module and its data, before a night is spent on training it.

    findings = run_all(Subject("mine", MyModel, MyData, classes=10))
    table(findings)

After A. Karpathy, "A Recipe for Training Neural Networks", 2019.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.checks.harness import Finding as Finding
    from trainlab.checks.run import run_all as run_all
    from trainlab.checks.run import table as table
    from trainlab.checks.subject import Items as Items
    from trainlab.checks.subject import MissingFactError as MissingFactError
    from trainlab.checks.subject import Subject as Subject

__all__ = ["Finding", "Items", "MissingFactError", "Subject", "run_all", "table"]


_MODULES = {
    "Finding": "trainlab.checks.harness",
    "run_all": "trainlab.checks.run",
    "table": "trainlab.checks.run",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: a subject costs Lightning, settings nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "trainlab.checks.subject")), name)
