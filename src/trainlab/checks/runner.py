"""Makes the checks, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lightning.pytorch.utilities.seed import isolate_rng

from trainlab.checks import data, initial, learning, paths  # noqa: F401 - they register their checks
from trainlab.checks.finding import CHECKS, Check, Finding, Outcome, Status
from trainlab.checks.harness import Bench
from trainlab.checks.subject import MissingFactError, NotApplicableError
from trainlab.errors import UserError
from trainlab.training.trainer import set_threads

if TYPE_CHECKING:
    from trainlab.checks.subject import Subject

LONGEST = 300  # characters of an error that are shown


def run_all(
    subject: Subject,
    only: Iterable[int] = (),
    *,
    seed: int = 0,
    tell: Callable[[Finding], None] | None = None,
) -> list[Finding]:
    """Make all checks of a subject, or `only` those of these numbers; `tell` hears each finding at once.

    A check whose facts the subject does not give is skipped, and says which; one that raises has failed.
    Random states are afterwards as before. Raises UserError where data or module can't be made.
    """
    set_threads()
    chosen = sorted(set(only) or CHECKS)
    findings = []
    with isolate_rng():
        bench = Bench(subject, seed)
        for number in chosen:
            findings.append(_finding(CHECKS[number], bench))
            if tell:
                tell(findings[-1])
    return findings


def _finding(check: Check, bench: Bench) -> Finding:
    started = time.perf_counter()
    status, outcome = _look(check, bench)
    seconds = time.perf_counter() - started
    facts = (outcome.found, check.threshold, check.means, seconds, outcome.curves, outcome.texts)
    return Finding(check.number, check.name, status, *facts)


def _look(check: Check, bench: Bench) -> tuple[Status, Outcome]:
    try:
        outcome = check.look(bench)
    except NotApplicableError as reason:
        return "skipped", Outcome(False, f"not applicable: {reason}")
    except MissingFactError as missing:
        return "skipped", Outcome(False, f"the subject does not give {missing}")
    except UserError:
        raise
    except Exception as error:  # a defect of what is checked is a finding, whatever it raises
        return "failed", Outcome(False, f"{type(error).__name__}: {error}"[:LONGEST])
    return ("passed" if outcome.passed else "failed"), outcome
