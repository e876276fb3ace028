"""A sweep as it goes on: one live table in a terminal, one line an event where the output is piped."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from trainlab import files
from trainlab.cleaning import printable
from trainlab.runs.display import duration, short
from trainlab.sweeps.display import (
    ENDED,
    counts,
    goal,
    no_curves,
    ordered,
    ranked,
    reason,
    seconds_left,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from rich.console import Console
    from rich.text import Text

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.display import Curves, Remaining
    from trainlab.sweeps.queue import Queue, Trial

_EVERY = 0.5  # seconds between two pictures of a terminal
_SHARE = 20  # reading and drawing take at most a twentieth of the time
_MOST_ENDED = 4  # rows kept for the newest pruned and failed trials, where the table must be cut
_LEAST_ROWS = 3


@contextlib.contextmanager
def read_or_not() -> Iterator[None]:
    """Print, and let a sweep go on whose output nobody reads any more, as behind `| head`."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the latter is what Rich makes of it
        files.mute_output()


class Board:
    """Shows a sweep while it goes on; use it as a context manager, and `update` it as often as you like.

    In a terminal one table stays in its place: running trials first, then the best, the newest that were
    pruned or failed, and how many others there are; it is never higher than the terminal. Elsewhere each
    event is one line: a trial started, was pruned, failed, finished, waits again.

    Args:
        definition: The sweep.
        curves: Gives the goal's values of each run of a trial, one a validation.
        remaining: Gives the seconds that a running trial will still take; by default as its record says.
        console: Where to print; by default standard output.
    """

    def __init__(
        self,
        definition: Definition,
        curves: Curves = no_curves,
        remaining: Remaining | None = None,
        console: Console | None = None,
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._definition, self._curves = definition, curves
        self._remaining = remaining or (lambda trial: seconds_left(definition, trial))
        self._console = console or Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None
        self._seen: dict[int, str] | None = None  # the state of each trial at the last update
        self._began: dict[int, float] = {}  # when a running one was first seen, by the monotonic clock
        self._took: list[float] = []  # seconds of those that have ended before our eyes
        self._drawn = self._read_next = 0.0  # by the monotonic clock

    def __enter__(self) -> Self:
        """Take the terminal."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back, without the table: `summary` tells more."""
        if self._live:
            self._live.stop()

    def __call__(self, queue: Queue, last: bool = False) -> None:
        """Show how a queue's trials are: what `worker.lead` calls. A large study is read less often."""
        began = time.monotonic()
        if last or began >= self._read_next:
            trials = queue.trials()
            with read_or_not():
                self.update(trials, now=last)
            self._read_next = time.monotonic() + _SHARE * (time.monotonic() - began)

    def update(self, trials: Sequence[Trial], now: bool = False) -> None:
        """Show how the trials are; in a terminal at most twice a second, unless it must be `now`."""
        events = self._events(trials)
        if self._live is None:
            for event in events:
                self._line(event)
        elif now or events or time.monotonic() - self._drawn >= _EVERY:
            self._drawn = time.monotonic()
            self._live.update(self.picture(trials), refresh=True)

    def say(self, text: str) -> None:
        """Print a message of the sweep's: above the table, or as a line among the others."""
        if self._live is None:
            self._line(text)
        else:
            self._console.print(printable(text), markup=False, highlight=False)

    def picture(self, trials: Sequence[Trial]) -> Text:
        """Return what a terminal shows of the trials now, within its height and width."""
        from rich.text import Text

        size = self._console.size
        head = f"{self._definition.name}: {counts(trials)}"
        if left := self._left(trials):
            head += f"; about {left} left"
        parts = [
            Text(printable(head), style="bold"),
            Text(f"goal {goal(self._definition)}", style="dim"),
        ]
        used = sum(-(-len(each) // size.width) for each in parts) + 3  # titles, the last line, the cursor's
        shown, others = self._chosen(trials, max(_LEAST_ROWS, size.height - used))
        if shown:
            parts.append(table(self._definition, shown, self._curves, self._remaining, size.width))
        if others:
            parts.append(Text(others, style="dim"))
        return Text("\n").join(parts)

    def _chosen(self, trials: Sequence[Trial], room: int) -> tuple[list[Trial], str]:
        """Return the trials that a table of some rows shows, and how many others there are."""
        order = ordered(self._definition, [each for each in trials if each.state != "waiting"])
        running = [each for each in order if each.state == "running"][:room]
        lost = [each for each in order if each.state in ("pruned", "failed")]
        lost.sort(key=lambda each: each.number, reverse=True)
        finished = [each for each in order if each.state == "finished"]
        left = room - len(running)
        few = min(len(lost), max(_MOST_ENDED, left - len(finished)), left)
        shown = [*running, *finished[: left - few], *lost[:few]]
        known = {each.number for each in shown}
        of = Counter(each.state for each in trials if each.number not in known)
        others = ", ".join(f"{of[state]:,} {state}" for state in ("running", *ENDED, "waiting") if of[state])
        return shown, f"besides {others}" if others else ""

    def _events(self, trials: Sequence[Trial]) -> list[str]:
        """Return what has changed since the last update, a sentence each."""
        before, self._seen = self._seen, {each.number: each.state for each in trials}
        now, found = time.monotonic(), []
        for each in trials:
            if each.state == "running":
                self._began.setdefault(each.number, now)
            elif (began := self._began.pop(each.number, None)) is not None and each.state in ENDED:
                self._took.append(now - began)
        if before is None:
            found.append(f"{self._definition.name}: {counts(trials)}; goal {goal(self._definition)}")
            before = {each.number: each.state if each.state in ENDED else "" for each in trials}
        done = sum(each in ENDED for each in before.values())
        for each in trials:
            was = before.get(each.number, "waiting")
            if each.state != was and (each.state != "waiting" or was == "running"):
                done += each.state in ENDED
                found.append(self._event(each, trials, f"{done} of {len(trials)}"))
        return found

    def _event(self, trial: Trial, trials: Sequence[Trial], done: str) -> str:
        why = reason(self._definition, trial)
        because = f": {why}" if why else ""
        if trial.state == "running":
            place = f" on {trial.owner.host} {trial.owner.slot}" if trial.owner else ""
            settings = " ".join(f"{name}={short(value)}" for name, value in trial.settings.items())
            return f"trial {trial.number} started{place}: {settings}" + (f" ({why})" if why else "")
        if trial.state == "waiting":
            return f"trial {trial.number} waits again{because}"
        if trial.state == "finished":
            because = f": {self._definition.goal} {short(trial.value)}"
        first = next(iter(ranked(self._definition, trials)), None)
        best = f"; best so far {short(first.value)} by trial {first.number}" if first else ""
        return f"trial {trial.number} {trial.state}{because} ({done} done{best})"

    def _line(self, text: str) -> None:
        moment = datetime.now().astimezone().strftime("%H:%M:%S")
        self._console.print(printable(f"{moment} {text}"), soft_wrap=True)

    def _left(self, trials: Sequence[Trial]) -> str:
        """Return about how long the sweep will take: the mean of the trials seen so far, over the slots."""
        running = sum(each.state == "running" for each in trials)
        if not self._took or not running:
            return ""
        mean, now = sum(self._took) / len(self._took), time.monotonic()
        waiting = sum(each.state == "waiting" for each in trials)
        begun = sum(max(0.0, mean - (now - began)) for began in self._began.values())
        return duration((waiting * mean + begun) / running)
