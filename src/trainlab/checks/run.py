"""Checking an experiment before it is trained: `trainlab check`, and what `notebooks/checks.ipynb` calls."""

from __future__ import annotations

import shlex
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainlab import experiments, paths
from trainlab.config import Config, assignments
from trainlab.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure
    from rich.table import Table

    from trainlab.checks.finding import Finding
    from trainlab.checks.subject import Subject

COUNT = 14  # checks of the recipe


class CheckConfig(Config):
    """What is checked: an `experiment`, with its `settings` such as 'margin=5 seed=1', and how.

    `only` names checks by their numbers, such as '7,11'; without it all are made.
    """

    experiment: str = Field("news", min_length=1)
    settings: str = ""
    only: str = ""

    def preflight(self) -> None:
        """Raise UserError for an unknown experiment, a word that is no setting, or a number of no check."""
        _module(self.experiment)
        self.given()
        self.numbers()

    def given(self) -> dict[str, str]:
        """Return the experiment's settings by name."""
        try:
            return assignments(shlex.split(self.settings))
        except ValueError as error:
            raise UserError(f"settings={self.settings}: {error}. Expected key=value, by blanks.") from None

    def numbers(self) -> list[int]:
        """Return the numbers of the checks to make."""
        words = [word.strip() for word in self.only.split(",") if word.strip()]
        for word in words:
            if not word.isdecimal() or not 1 <= int(word) <= COUNT:
                raise UserError(f"only={self.only}: {word} is no check. Expected numbers from 1 to {COUNT}.")
        return sorted({int(word) for word in words}) or list(range(1, COUNT + 1))


@dataclass(frozen=True)
class Checked:
    """What was found, and the run that shows it in TensorBoard."""

    findings: list[Finding]
    run: Path

    @property
    def failed(self) -> list[Finding]:
        """The findings that failed."""
        return [each for each in self.findings if each.status == "failed"]

    def table(self) -> Table:
        """Return the findings as a table for a terminal or a notebook."""
        return table(self.findings)

    def curves(self) -> Figure:
        """Draw the losses of the checks' trainings."""
        from trainlab.checks import report

        return report.plot_curves(self.findings)

    def as_json(self) -> str:
        """Return the findings as a JSON list with one object a check."""
        from trainlab.checks import report

        return report.as_json(self.findings)


def check(config: CheckConfig, tell: Callable[[Finding], None] | None = None) -> Checked:
    """Check an experiment, and record the findings as a run of the experiment 'checks'.

    `tell` hears each finding as soon as it is made. Raises UserError, before there is a run, for an
    experiment, settings or numbers that there are none of.
    """
    config.preflight()
    subject = _subject(config.experiment, config.given())
    from trainlab.checks import report, run_all
    from trainlab.run.run import Run

    name = f"{config.experiment} {config.settings}"
    with Run("checks", config, name=name, metrics={"check/failed": "min", "check/passed": "max"}) as run:
        run.update(looks=True)  # what it trains is small on purpose: the table is no place for it
        findings = run_all(subject, config.numbers(), tell=tell)
        report.record(run, findings)
    return Checked(findings, run.folder)


def table(findings: Sequence[Finding]) -> Table:
    """Return findings as a table for a terminal or a notebook."""
    from trainlab.checks import report

    return report.table(findings)


def _module(name: str) -> str:
    """Return the `module:function` behind a name, or behind one's own `module:function`."""
    if ":" in name:
        return name
    found = experiments.with_file("checks.py")
    if name not in found:
        raise UserError(
            f"{name}: no such experiment.{nearest(name, found)} Known: {', '.join(found)}; or your "
            "module:function."
        )
    return f"{experiments.PACKAGE}.{name}.checks:subject"


def _subject(name: str, settings: Mapping[str, Any]) -> Subject:
    """Return what is checked of an experiment under these settings.

    A `module:function` of one's own is looked for beside the notebooks and in the working folder.
    """
    module, _, function = _module(name).partition(":")
    sys.path += [each for each in (str(paths.notebooks()), str(Path.cwd())) if each not in sys.path]
    try:
        with warnings.catch_warnings():  # our bars are plain text, and need no widgets
            warnings.filterwarnings("ignore", "IProgress not found")
            make = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        if ":" not in name:
            raise
        raise UserError(f"{name}: {error}. Expected module:function that returns a Subject.") from error
    return make(settings)
