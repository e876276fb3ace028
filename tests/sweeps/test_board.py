"""A sweep as it goes on: one table in a terminal, a line an event elsewhere."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from swept import STEER, definition, forty, owner, trial
from trainlab.sweeps import board
from trainlab.sweeps.board import Board


def piped(**fields):
    """Return a board whose output is piped, and what it has printed."""
    out = io.StringIO()
    console = Console(file=out, highlight=False, markup=False, emoji=False, width=60)
    return Board(definition(**fields), console=console), lambda: re.sub(
        r"(?m)^\d\d:\d\d:\d\d ", "", out.getvalue()
    )


def terminal(width=80, height=24, **fields):
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, highlight=False, markup=False
    )
    return Board(definition(**fields), lambda _: [[2.0, 1.0]], lambda _: 61.0, console)


def test_piped_each_event_is_one_line_and_the_beginning_says_how_it_is():
    shown, out = piped()
    waiting = [trial(each, "waiting") for each in range(4)]
    shown.update(waiting)
    shown.update(waiting)
    assert out() == "margins: 0 of 4 done; 4 waiting; goal val/loss, lower is better\n"
    shown.update([trial(0, "running"), *waiting[1:]])
    shown.update([trial(0, value=0.25), trial(1, "running"), *waiting[2:]])
    pruned = trial(1, "pruned", reason="pruned at validation 3: worse than the median")
    failed = trial(2, "failed", reason="out of memory")
    shown.update([trial(0, value=0.25), pruned, failed, trial(3, value=0.125)])
    first = "margin=1 learning_rate=1e-05 head_learning_rate=0.0001 mining=semihard"
    second = "margin=3 learning_rate=2e-05 head_learning_rate=0.0002 mining=hard"
    assert out().splitlines()[1:] == [
        f"trial 0 started on box cpu 0: {first}",
        "trial 0 finished: val/loss 0.25 (1 of 4 done; best so far 0.25 by trial 0)",
        f"trial 1 started on box cpu 1: {second}",
        "trial 1 pruned: at validation 3: worse than the median (2 of 4 done; best so far 0.125 by trial 3)",
        "trial 2 failed: out of memory (3 of 4 done; best so far 0.125 by trial 3)",
        "trial 3 finished: val/loss 0.125 (4 of 4 done; best so far 0.125 by trial 3)",
    ]


def test_a_resumed_sweep_tells_nothing_of_what_ended_before():
    shown, out = piped()
    shown.update([trial(0), trial(1, "running", attempts=2), trial(2, "waiting")])
    assert out().splitlines() == [
        "margins: 1 of 3 done: 1 finished; 1 running, 1 waiting; goal val/loss, lower is better",
        "trial 1 started on box cpu 1: margin=3 learning_rate=2e-05 head_learning_rate=0.0002 mining=hard "
        "(taken 2 times)",
    ]


def test_a_trial_that_waits_again_says_why():
    shown, out = piped()
    shown.update([trial(0, "running")])
    shown.update([trial(0, "waiting", attempts=1, reason="its host box is gone")])
    assert out().splitlines()[-1] == "trial 0 waits again: its host box is gone"


def test_a_message_is_a_line_too_and_steers_nothing():
    shown, out = piped()
    shown.say(f"{STEER} is shared")
    shown.update([trial(0, "failed", reason=STEER, settings={"margin": STEER}, owner=owner(STEER, STEER))])
    assert "\x1b" not in out()
    assert "[bold red]x[/] ? is shared" in out()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50), (60, 12), (200, 100)])
def test_the_picture_fits_into_the_terminal(width, height):
    shown = str(terminal(width, height).picture(forty())).splitlines()
    assert sum(-(-len(line) // width) for line in shown) < height
    assert max(map(len, shown[2:])) <= width
    assert shown[0].startswith("margins: 27 of 40 done")


def test_a_screen_of_24_lines_shows_the_running_the_best_and_why_some_were_pruned():
    shown = str(terminal().picture(forty())).splitlines()
    numbers = [int(line.split()[0]) for line in shown[3:-1]]
    assert numbers[:5] == [27, 28, 0, 1, 2]
    assert numbers[-4:] == [26, 25, 24, 23]
    assert shown[3].endswith("running   1 min left")
    assert "out of memory" in shown[-5]
    assert shown[-1] == "besides 7 finished, 3 pruned, 11 waiting"


def test_more_running_trials_than_lines_are_counted():
    shown = str(terminal().picture([trial(each, "running") for each in range(100)])).splitlines()
    assert len(shown) < 24
    assert shown[-1].startswith("besides 8")
    assert shown[-1].endswith(" running")


def test_the_time_left_is_the_mean_of_the_trials_seen_over_the_slots(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: now[0])
    shown = terminal()
    waiting = [trial(each, "waiting") for each in range(2, 12)]
    shown.update([trial(0, "running"), trial(1, "running"), *waiting])
    now[0] = 100.0
    running = replace(trial(2, "running"), number=2)
    trials = [trial(0), trial(1), running, trial(3, "running"), *waiting[2:]]
    shown.update(trials)
    assert "about 8 min 20 s left" in str(shown.picture(trials)).splitlines()[0]  # (8 + 2) * 100 s / 2


def test_a_large_study_is_read_less_often(monkeypatch):
    now, reads = [0.0], []
    monkeypatch.setattr(board.time, "monotonic", lambda: now[0])

    class Slow:
        def trials(self):
            reads.append(now[0])
            now[0] += 1.0
            return [trial(0, "running")]

    shown, _ = piped()
    for _ in range(60):
        shown(Slow())
        now[0] += 1.0
    assert 2 <= len(reads) <= 4
    shown(Slow(), last=True)
    assert reads[-1] == now[0] - 1.0


def test_the_terminal_is_given_back_when_the_sweep_breaks_off():
    shown = terminal()
    with pytest.raises(KeyboardInterrupt), shown:
        shown.update(forty())
        raise KeyboardInterrupt
    assert (
        shown._console.file.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in shown._console.file.getvalue()
    )
