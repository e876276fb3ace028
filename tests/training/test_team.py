from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import team_work
from team_work import Wait, WaitDeaf, WaitSaving
from trainlab.errors import UserError
from trainlab.run.signals import Terminated
from trainlab.training.team import Team, pickled

DEADLINE = 60.0  # seconds


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def outcome(work: object, folder: Path = Path()) -> bytes:
    with Team(2, pickled(work), folder) as team:
        return team.outcome()


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Of those started here; the tracker of Python's own shared memory stays by design."""
    before = children()
    yield
    left = [child.cmdline() for child in children() - before]
    assert not [words for words in left if "tracker" not in str(words)], left


def test_the_first_process_returns_and_alone_prints(capfd: pytest.CaptureFixture[str]) -> None:
    assert outcome(team_work.describe) == b"0 127.0.0.1"
    assert capfd.readouterr().out == "here is 0\n"


def test_what_one_process_raises_is_raised_here_and_says_where() -> None:
    since = time.monotonic()
    with pytest.raises(ValueError, match="no such luck") as caught:
        outcome(team_work.fail)
    assert "In process 1" in caught.value.__notes__[0]
    assert "team_work.py" in caught.value.__notes__[0]
    assert time.monotonic() - since < team_work.FOREVER / 2


def test_an_exception_that_cannot_travel_is_told_in_words() -> None:
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        outcome(team_work.fail_oddly)


def test_a_killed_process_ends_all_and_is_named() -> None:
    with pytest.raises(UserError, match=r"Process 1 of 2 was killed \(signal 9\)"):
        outcome(team_work.die)


def stop_when(condition: Callable[[], bool], *signals: int, between: Callable[[], bool] = bool) -> None:
    def stop() -> None:
        until(condition)
        os.kill(os.getpid(), signals[0])
        for number in signals[1:]:
            until(between)
            os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_lets_the_first_process_save(
    number: int, raised: type[BaseException], tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stop_when(lambda: len(list(tmp_path.glob("process-*"))) == 2, number)
    with pytest.raises(raised):
        outcome(Wait(tmp_path))
    assert (tmp_path / "saved").read_text() == f"0 {signal.Signals(number).name}"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    started, heard = (lambda: len(list(tmp_path.glob("process-*"))) == 2), (tmp_path / "heard").exists
    stop_when(started, signal.SIGTERM, signal.SIGTERM, between=heard)
    since = time.monotonic()
    with pytest.raises(Terminated):
        outcome(WaitDeaf(tmp_path))
    assert time.monotonic() - since < team_work.FOREVER / 2


def test_a_save_that_has_begun_is_finished_whatever_comes(tmp_path: Path) -> None:
    started, heard = (lambda: len(list(tmp_path.glob("process-*"))) == 2), (tmp_path / "heard").exists
    stop_when(started, signal.SIGTERM, signal.SIGTERM, between=heard)
    with pytest.raises(Terminated):
        outcome(WaitSaving(tmp_path), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["whole"]


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    lines = [
        "from pathlib import Path; from team_work import Wait",
        "from trainlab.training.team import Team, pickled",
        f"team = Team(2, pickled(Wait(Path({str(tmp_path)!r}), save=False)), Path())",
        "team.__enter__(); team.outcome()",
    ]
    paths = [str(Path(team_work.__file__).parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    parent = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], env=environment)
    processes = [tmp_path / f"process-{rank}" for rank in range(2)]
    until(lambda: all(path.exists() and path.read_text() for path in processes))
    parent.kill()
    parent.wait()
    until(lambda: not any(psutil.pid_exists(int(path.read_text())) for path in processes))


def test_what_cannot_be_sent_is_said() -> None:
    with pytest.raises(UserError, match=r"can't be sent to another process: .*lambda.*must be picklable"):
        pickled(lambda rank: None)


SCRIPT = """
import sys
from pathlib import Path
from trainlab.training.team import Team, pickled
class Work:
    def __call__(self, rank):
        return b"done"
print("started")
{guard}
    with Team(2, pickled(Work()), Path()) as team:
        print(team.outcome())
"""


def script(path: Path, guard: str) -> subprocess.CompletedProcess[str]:
    path.write_text(SCRIPT.format(guard=guard))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, str(path)], env=environment, capture_output=True, text=True, check=False
    )


def test_a_script_that_would_start_over_is_refused(tmp_path: Path) -> None:
    ended = script(tmp_path / "mine.py", "if True:")
    assert "__name__" in ended.stderr
    assert "mine.py too, and would start over" in ended.stderr
    assert ended.stdout == "started\n"


def test_a_script_may_define_the_work_and_guard_the_rest(tmp_path: Path) -> None:
    ended = script(tmp_path / "mine.py", 'if __name__ == "__main__":')
    assert "b'done'" in ended.stdout, ended.stderr


def test_a_script_is_not_read_again_where_the_work_does_without(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    lines = [
        "print('started')",
        "from team_work import describe",
        "from trainlab.training.team import Team, pickled",
        "from pathlib import Path",
        "with Team(2, pickled(describe), Path()) as team: print(team.outcome())",
    ]
    path.write_text("\n".join(lines))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.count("started") == 1


def test_what_a_notebook_defines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    work = pickle.dumps("__main__")
    with pytest.raises(UserError, match="move what this notebook defines into a module"):
        Team(2, work, tmp_path).__enter__()
