"""The container's first process, in a process namespace of its own: how long it lets runs end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from project import CHECKOUT
from waiting import until

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
DEADLINE = 60.0  # seconds
SERVER = "#!/bin/sh\necho $$ >server\nexec sleep 600\n"
# holds a run's lock, and is in the midst of a step, then of a save, when the stop comes
SAVING = """
import signal, sys, time
from pathlib import Path
from trainlab import files
from trainlab.run import lock, signals
folder = Path("logs/news/run")
step, save = map(float, sys.argv[1:])
(folder / "checkpoints").mkdir(parents=True)
(folder / "run.json").write_text('{\\n  "longest_step": %.1f\\n}\\n' % step)
held = lock.hold(folder)
with signals.deferred() as deferral:
    Path("at-work").touch()
    while deferral.requested is None:
        time.sleep(0.05)
    time.sleep(step)
    with signals.held(), files.replacing(folder / "checkpoints/step-00000002.ckpt") as file:
        file.write(b"weights")
        time.sleep(save)
"""


def can_unshare() -> bool:
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("step", "save"), [("0", "12"), ("11", "0.1")])
def test_a_stop_waits_for_a_long_step_and_for_a_save_that_has_begun(
    tmp_path: Path, step: str, save: str
) -> None:
    """Ten seconds are what it grants other processes."""
    if not can_unshare():
        pytest.skip("no process namespace can be made here")
    for name in ("logs", "data", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "jupyter-lab").write_text(SERVER)
    (tmp_path / "jupyter-lab").chmod(0o755)
    (tmp_path / "saving.py").write_text(SAVING)
    script = f"{sys.executable} saving.py {step} {save} & exec bash {CHECKOUT}/jupyter/entry jupyter-lab"
    environment = os.environ | {"TRAINLAB_ROOT": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    entry = subprocess.Popen([*NAMESPACE, "bash", "-c", script], cwd=tmp_path, env=environment)
    try:
        end = time.monotonic() + DEADLINE
        while not ((tmp_path / "at-work").exists() and (tmp_path / "server").exists()):
            assert time.monotonic() < end, "neither server nor run"
            time.sleep(0.05)
        inside = subprocess.check_output(["pgrep", "-P", str(entry.pid)], text=True).split()
        os.kill(int(inside[0]), 15)
        entry.wait(DEADLINE)
    finally:
        entry.kill()
    assert (tmp_path / "logs/news/run/checkpoints/step-00000002.ckpt").read_bytes() == b"weights"
    assert not list((tmp_path / "logs/news/run/checkpoints").glob(".*"))


def test_whom_to_tell_is_told_to_the_watcher_and_not_to_the_server(tmp_path: Path) -> None:
    if not can_unshare():
        pytest.skip("no process namespace can be made here")
    for name in ("logs", "data", "notebooks"):
        (tmp_path / name).mkdir()
    teller = '#!/bin/sh\ntrap "touch ended; exit" TERM\necho "$1 $NOTIFY" >told\nsleep 600 & wait\n'
    for name, script in (
        ("jupyter-lab", "#!/bin/sh\ncat /proc/$$/environ >environ\necho $$ >server\nexec sleep 600\n"),
        ("trainlab", teller),
    ):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "TRAINLAB_ROOT": str(tmp_path),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "NOTIFY": "ntfy://a-secret-topic",
    }
    command = ["bash", "-c", f"exec bash {CHECKOUT}/jupyter/entry jupyter-lab"]
    entry = subprocess.Popen([*NAMESPACE, *command], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    try:
        until(lambda: (tmp_path / "told").exists() and (tmp_path / "server").exists(), "both")
        inside = subprocess.check_output(["pgrep", "-P", str(entry.pid)], text=True).split()
        os.kill(int(inside[0]), 15)
        _, said = entry.communicate(timeout=DEADLINE)
    finally:
        entry.kill()
    assert (tmp_path / "told").read_text() == "notify ntfy://a-secret-topic\n"
    assert (tmp_path / "ended").exists(), "a stop ends it, too"
    assert b"a-secret-topic" not in (tmp_path / "environ").read_bytes() + said
