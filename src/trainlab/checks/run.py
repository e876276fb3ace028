"""Checking an experiment before it is trained: `trainlab check`, and what `notebooks/checks.ipynb` calls."""

from __future__ import annotations

import json
import shlex
import sys
import time
import warnings
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainlab import experiments, extras, paths
from trainlab.cleaning import markdown_table
from trainlab.config import Config, assignments
from trainlab.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matplotlib.figure import Figure
    from rich.table import Table

    from trainlab.checks.harness import Finding
    from trainlab.checks.subject import Subject
    from trainlab.run.run import Run

COUNT = 14  # checks of the recipe
LONGEST = 300  # characters of an error that are shown
STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


class CheckConfig(Config):
    """What is checked: an `experiment`, with its `settings` such as 'margin=5 seed=1', and how.

    `only` names checks by their numbers, such as '7,11'; without it all are made.
    """

    experiment: str = Field("news", min_length=1)
    settings: str = ""
    only: str = ""

    def preflight(self) -> None:
        """Raise UserError for an unknown experiment, a word that is no setting, or a number of no check."""
        _place(self.experiment)
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
    """What was found, and the folder of the run that shows it in TensorBoard."""

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
        """Draw the losses of the checks' trainings: a panel for each of their tags' first parts."""
        from trainlab.runs.frames import scalars
        from trainlab.runs.plots import plot_curves

        panels: dict[str, list[str]] = {}
        for tag in (tag for each in self.findings for tag in each.curves):
            panels.setdefault(tag.partition("/")[0], []).append(tag)
        return plot_curves(scalars(self.run), panels or {"no check with a training": []})

    def as_json(self) -> str:
        """Return a JSON list with one object a check; curves and texts go to TensorBoard alone."""
        left_out = ("curves", "texts")
        found = [{k: v for k, v in vars(each).items() if k not in left_out} for each in self.findings]
        return json.dumps(found, indent=2)


def check(config: CheckConfig, tell: Callable[[Finding], None] | None = None) -> Checked:
    """Check an experiment, and record the findings as a run of the experiment 'checks'.

    Args:
        config: What is checked, and by which checks.
        tell: Called with each finding as soon as it is made.

    Returns:
        The findings in the checks' order, and the run.

    Raises:
        UserError: Before there is a run, for an experiment, settings or numbers that there are none of.
    """
    config.preflight()
    subject = subject_of(config.experiment, config.given())
    from trainlab.run.run import Run

    name = f"{config.experiment} {config.settings}"
    with Run("checks", config, name=name, metrics={"check/failed": "min", "check/passed": "max"}) as run:
        run.update(looks=True)  # what it trains is small on purpose: the table is no place for it
        findings = run_all(subject, config.numbers(), tell=tell)
        _record(run, findings)
    return Checked(findings, run.folder)


def run_all(
    subject: Subject,
    only: Iterable[int] = (),
    *,
    seed: int = 0,
    tell: Callable[[Finding], None] | None = None,
) -> list[Finding]:
    """Make the checks of a subject, one after the other. Random states are afterwards as before.

    Args:
        subject: A module, its data, and what is known of them.
        only: Numbers of the checks to make; all where empty.
        seed: Of weights, batches and whatever else is drawn.
        tell: Called with each finding as soon as it is made.

    Returns:
        The findings by number. A check whose facts the subject does not give is skipped, and says which; one
        that raises has failed.

    Raises:
        UserError: Data or module can't be made.
    """
    from lightning.pytorch.utilities.seed import isolate_rng

    from trainlab.checks import data, learning  # noqa: F401 - they register their checks
    from trainlab.checks.harness import CHECKS, CheckContext, CheckResult, Status
    from trainlab.checks.subject import MissingFactError
    from trainlab.training.trainer import set_threads

    set_threads()
    findings = []
    with isolate_rng():
        context = CheckContext(subject, seed)
        for number in sorted(set(only) or CHECKS):
            (finding, make), began = CHECKS[number], time.perf_counter()
            try:
                result = make(context)
                status: Status = "passed" if result.passed else "failed"
            except MissingFactError as reason:
                status, result = "skipped", CheckResult(False, f"{reason.prefix} {reason}")
            except UserError:
                raise
            except Exception as error:  # a defect of what is checked is a finding, whatever it raises
                status, result = "failed", CheckResult(False, f"{type(error).__name__}: {error}"[:LONGEST])
            seconds = time.perf_counter() - began
            finding = replace(finding, status=status, found=result.found, seconds=seconds)
            findings.append(replace(finding, curves=result.curves, texts=result.texts))
            if tell:
                tell(findings[-1])
    return findings


def table(findings: Sequence[Finding]) -> Table:
    """Return a table with a row for each check; a failed one says what that usually means."""
    from rich.table import Table
    from rich.text import Text

    shown = Table("", "check", "", "found", "passes when", "seconds", show_lines=True)
    for each in findings:
        found = Text(each.found)
        if each.status == "failed":
            found.append(f"\nusually: {each.means}", style="italic")
        status = Text(each.status, style=STYLES[each.status])
        shown.add_row(str(each.number), each.name, status, found, Text(each.threshold), f"{each.seconds:.1f}")
    return shown


def _record(run: Run, findings: Sequence[Finding]) -> None:
    """Write the table, 1 or 0 for each check that passed or failed, and what the trainings showed."""
    head = ("", "check", "status", "found", "passes when", "a failure usually means", "seconds")
    rows = [
        (each.number, each.name, each.status, each.found, each.threshold, each.means, f"{each.seconds:.1f}")
        for each in findings
    ]
    run.log_text("checks", markdown_table(head, rows, ("", "seconds")), 0)
    run.log({f"check/{status}": sum(each.status == status for each in findings) for status in STYLES}, 0)
    for each in findings:
        if each.status != "skipped":
            tag = f"check/{each.number:02}-{each.name.replace(' ', '-')}"
            run.log({tag: each.status == "passed"}, 0)
        for tag, losses in each.curves.items():
            for step, loss in enumerate(losses):
                run.log({tag: loss}, step)
        for tag, texts in each.texts.items():
            for epoch, text in enumerate(texts):
                run.log_text(tag, text, epoch)


def _place(name: str) -> str:
    """Return the `module:function` of an experiment's subject, or `name` where it is one already."""
    if ":" in name:
        return name
    found = experiments.with_file("checks.py")
    if name not in found:
        raise UserError(
            f"{name}: no such experiment.{nearest(name, found)} Known: {', '.join(found)}; or your "
            "module:function."
        )
    return f"{experiments.PACKAGE}.{name}.checks:subject"


def subject_of(name: str, settings: Mapping[str, Any]) -> Subject:
    """Return what is checked of an experiment under these settings.

    A `module:function` of one's own is looked for beside the notebooks and in the working folder.
    """
    module, _, function = _place(name).partition(":")
    sys.path += [each for each in (str(paths.notebooks()), str(Path.cwd())) if each not in sys.path]
    try:
        with warnings.catch_warnings():  # our bars are plain text, and need no widgets
            warnings.filterwarnings("ignore", "IProgress not found")
            make = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        if ":" not in name:
            raise
        if isinstance(error, ModuleNotFoundError):
            told = extras.explained(error, name)
            if isinstance(told, UserError):
                raise told from None
        raise UserError(f"{name}: {error}. Expected module:function that returns a Subject.") from error
    return make(settings)
