"""What `make` hands on from and to a terminal: prompts, Ctrl-C, signals."""

from __future__ import annotations

import signal
import subprocess

import pytest

from fake_machine import Machine, environment_of
from project import clean_environment
from terminal import CTRL_C, in_terminal


@pytest.mark.parametrize(
    ("target", "called"),
    [
        ("run ARGS=news", "trainlab run news"),
        ("demo", "trainlab run news"),
        ("article", "trainlab run article"),
        ("runs", "trainlab runs"),
        ("sweep ARGS=list", "trainlab sweep list"),
        ("shell", "bash"),
    ],
)
def test_a_command_in_the_container_has_a_terminal_where_make_has_one(
    machine: Machine, target: str, called: str
) -> None:
    machine.make("up")
    environment = clean_environment() | machine.environment
    with in_terminal(["make", *target.split()], machine.folder, environment) as terminal:
        terminal.until("")
    assert terminal.process.returncode == 0
    (call,) = (line for line in machine.calls().splitlines() if line.endswith(called))
    assert "exec --interactive" in call
    assert (machine.tools / "terminal").exists()
    machine.make(*target.split())
    assert machine.calls().splitlines()[-1].startswith("compose exec --no-TTY") or target in (
        "demo",
        "article",
    )


WAIT_FOR_CTRL_C = """
import sys, time
try:
    print("in a terminal" if sys.stdout.isatty() and sys.stdin.isatty() else "in a pipe", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    print("saved", flush=True)
    sys.exit(130)
"""


def test_without_docker_a_ctrl_c_reaches_the_run_and_its_last_words_are_shown(machine: Machine) -> None:
    environment_of(machine.folder, machine.tools / "pip")
    command = machine.folder / ".venv/bin/trainlab"
    command.write_text(command.read_text().splitlines()[0] + WAIT_FOR_CTRL_C)
    (machine.folder / ".stack").mkdir()
    supervisor = subprocess.Popen(["sleep", "300"], env={"TRAINLAB_STACK": f"{machine.folder}/.stack"})
    (machine.folder / ".stack/supervisord.pid").write_text(str(supervisor.pid))
    environment = clean_environment() | machine.environment
    with in_terminal(["make", "run", "ENGINE=local", "ARGS=news"], machine.folder, environment) as terminal:
        terminal.until("in a terminal")
        terminal.type(CTRL_C)
        assert "saved\r\n" in terminal.until("")
    supervisor.kill()
    supervisor.wait()


def test_logs_go_on_in_a_terminal(machine: Machine) -> None:
    environment = clean_environment() | machine.environment
    with in_terminal(["make", "logs"], machine.folder, environment) as terminal:
        terminal.until("")
    assert "compose logs --tail 100 --follow" in machine.calls()
    machine.make("logs")
    assert machine.calls().splitlines()[-1] == "compose logs --tail 100"


@pytest.mark.parametrize("verb", ["run", "sweep"])
@pytest.mark.parametrize(("sent", "name"), [(signal.SIGINT, "INT"), (signal.SIGTERM, "TERM")])
def test_a_signal_reaches_the_run_or_the_sweep_where_make_has_no_terminal(
    machine: Machine, sent: signal.Signals, name: str, verb: str
) -> None:
    machine.make("up")
    (machine.tools / "long").touch()
    code, printed = machine.signalled(sent, verb, "ARGS=news")
    assert "a checkpoint was saved" in printed
    assert code != 0
    (call,) = (line for line in machine.calls().splitlines() if f"pass_on {name} " in line)
    assert call.split()[-1] in machine.calls().split(f"trainlab {verb}")[0], "the mark of its process"
