"""Fourteen checks of a Lightning module and its data, before a night is spent on training it.

    findings = run_all(Subject("mine", MyModel, MyData, classes=10))
    table(findings)

After A. Karpathy, "A Recipe for Training Neural Networks", 2019.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.checks.finding import Finding as Finding
    from trainlab.checks.report import record as record
    from trainlab.checks.report import table as table
    from trainlab.checks.runner import run_all as run_all
    from trainlab.checks.subject import Items as Items
    from trainlab.checks.subject import MissingFactError as MissingFactError
    from trainlab.checks.subject import Subject as Subject

__all__ = ["Finding", "Items", "MissingFactError", "Subject", "record", "run_all", "table"]

_MODULES = {
    "Finding": "finding",
    "Items": "subject",
    "MissingFactError": "subject",
    "Subject": "subject",
    "record": "report",
    "run_all": "runner",
    "table": "report",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: a subject costs Lightning, its settings nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"trainlab.checks.{_MODULES[name]}"), name)
