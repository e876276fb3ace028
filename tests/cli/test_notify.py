"""The command `trainlab notify`: whom it tells, and what it shows of that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from lab import Lab
from message_server import serving
from project import CHECKOUT
from trainlab import secrets
from trainlab.cli import doctor, notify
from trainlab.run import lock
from trainlab.sweeps import definition


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(secrets, "_told", set())


def typed(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from trainlab.cli import main; main()", "notify", *words]
    return subprocess.run(
        command, env=lab.environment, cwd=lab.root, capture_output=True, text=True, timeout=120, check=False
    )


def test_without_an_address_it_says_what_to_write_where(lab: Lab):
    done = typed(lab)
    assert done.returncode == 2
    assert done.stderr.startswith("error: NOTIFY names nobody to tell. In .env: NOTIFY=")


def test_a_test_says_of_each_address_what_happened_and_shows_no_key(lab: Lab):
    pytest.importorskip("apprise")
    with serving() as good, serving(403) as refusing:
        lab.environment["NOTIFY"] = f"{good.address('T0pSecret99')} {refusing.address()},nobody://T0pSecret88"
        done = typed(lab, "--test")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "json://…  sent",
        "json://…  not sent: the server refuses it (4xx): is the key right?",
        "nobody://…  not sent: Apprise does not understand the address",
    ]
    assert "T0pSecret" not in done.stdout + done.stderr
    assert len(good.messages) == 1


def test_a_shell_of_the_stack_finds_the_addresses_in_env(lab: Lab):
    pytest.importorskip("apprise")
    shutil.copytree(CHECKOUT / "stack", lab.root / "stack")
    with serving() as good:
        (lab.root / ".env").write_text(f"NOTIFY='{good.address()}'\n")
        done = typed(lab, "--test")
    assert done.stdout == "json://…  sent\n", done.stderr


def test_doctor_names_the_kinds_of_the_addresses_alone():
    line = doctor.notifying("slack://T0pSecret99/x ntfy://a-secret-topic")
    assert "slack://…, ntfy://…" in line.found
    assert "ecret" not in line.found + line.fix


def test_a_sweep_that_is_led_goes_on_and_one_that_is_deleted_does_not(tmp_path):
    folder = definition.folder("led", tmp_path)
    folder.mkdir(parents=True)
    held = lock.hold(folder, definition.LEADER)
    found = notify.ended_sweeps({"led", "gone"}, tmp_path)
    assert {name: end.state for name, end in found.items()} == {"gone": "deleted"}
    held.release()


def test_how_a_sweep_ended_is_told_with_its_trials_and_its_best(tmp_path, monkeypatch):
    listed = [
        {"sweep": "lr", "state": "done", "trials": 3, "by_state": {"finished": 2, "failed": 1, "lost": 0}}
        | {"best": 0.25, "goal": "val/loss"},
        {"sweep": "on", "state": "running here", "trials": 3, "by_state": {}, "best": None, "goal": "x"},
    ]

    def listing(*_, **__):
        return subprocess.CompletedProcess((), 0, json.dumps(listed).encode())

    monkeypatch.setattr(notify.subprocess, "run", listing)
    (end,) = notify.ended_sweeps({"lr", "on"}, tmp_path).values()
    assert (end.state, end.trials, end.goal) == (
        "done",
        "3 trials: 2 finished, 1 failed",
        "best val/loss 0.25",
    )
