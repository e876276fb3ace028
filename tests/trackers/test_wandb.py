"""`tracker=wandb` without a network. Its real server was never asked: nothing here leaves the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import trainlab
from trainlab.trackers import wandb

KEY = "0123456789abcdef0123456789abcdef01234567"  # of the right form, and nobody's
TRAIN = """
import socket, sys
from pathlib import Path

real = socket.socket.connect
def connect(self, address):
    assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), f"asks {address}"
    return real(self, address)
socket.socket.connect = connect

def resolve(host, *_, **__):
    raise OSError(f"asked for {host}")
socket.getaddrinfo = resolve

import trainlab
with trainlab.Run("exp", {"margin": 3.0}, logs=Path(sys.argv[1]), tracker="wandb", monitor=False) as run:
    for step in range(3):
        run.log({"train/loss": 1 / (step + 1), "val/precision@10": 0.5}, step)
"""


def test_without_a_network_a_run_is_kept_for_later_with_settings_name_points_and_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "logs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "has stopped" not in done.stderr
    (folder,) = (tmp_path / "logs" / "exp").iterdir()
    known = json.loads((folder / "run.json").read_text())["trackers"]["wandb"]
    (kept,) = (tmp_path / "logs" / ".wandb").glob(f"offline-run-*-{known}/run-{known}.wandb")
    content = kept.read_bytes()
    for expected in (folder.name, "margin", "train/loss", "val/precision@10", "finished"):
        assert expected.encode() in content, expected
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in done.stdout + done.stderr
    assert [row.run for row in trainlab.runs.listing.rows(tmp_path / "logs")] == [folder.name]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "offline"),
        ({"WANDB_BASE_URL": "http://127.0.0.1:9"}, "offline"),
    ],
)
def test_it_is_online_only_with_a_key_and_a_server_that_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], expected: str
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wandb.mode() == expected


def test_a_server_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert wandb.mode() == "online"
