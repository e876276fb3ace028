"""`trainlab doctor`: each finding, on a machine made up for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from project import CHECKOUT
from trainlab import paths, system
from trainlab.cli import doctor

GIB = 1 << 30
GPU = [("NVIDIA H200", "580.95.05")]


@pytest.mark.parametrize(
    ("found", "torch", "cuda", "level", "told"),
    [
        (None, "2.13.0+cpu", None, "ok", "no NVIDIA GPU"),
        (None, "2.13.0+cu130", "13.0", "ok", "no NVIDIA GPU"),
        (GPU, "2.13.0+cu130", "13.0", "ok", "1 NVIDIA H200, driver 580.95.05"),
        (GPU, "2.13.0+cpu", None, "warning", "not used"),
        ([], "2.13.0+cu130", "13.0", "warning", "nvidia-smi finds no GPU"),
        ([("Tesla T4", "470.57.02")], "2.13.0+cu130", "13.0", "error", "too old"),
        ([("Tesla T4", "535.10.01")], "2.13.0+cu126", "12.6", "ok", "driver 535.10.01"),
        (None, None, None, "error", "not installed"),
    ],
)
def test_the_gpu_is_held_against_torch_s_build(found, torch, cuda, level, told):
    line = doctor.gpu(found, torch, cuda)
    assert line.level == level
    assert told in line.found
    assert bool(line.fix) == (level != "ok")


def test_torch_s_build_is_read_without_importing_it():
    code = "import sys\nfrom trainlab.cli import doctor\nprint(doctor.torch_build(), 'torch' in sys.modules)"
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    import torch

    assert told.strip() == f"{(str(torch.__version__), torch.version.cuda)} False"


@pytest.mark.parametrize(
    ("outputs", "level", "told"),
    [
        ({"info": "26.1.5", "compose": "2.26.1-4"}, "ok", "Docker 26.1.5, Compose 2.26.1-4"),
        ({"info": "20.10.24", "compose": "v2.17.3"}, "ok", "v2.17.3"),
        ({"info": "26.1.5", "compose": "2.10.0"}, "error", "2.10.0"),
        ({"info": "26.1.5", "compose": ""}, "error", "missing"),
        ({"info": "", "compose": "2.26.1"}, "warning", "no engine answers"),
    ],
)
def test_the_engine_and_its_compose_are_looked_at(monkeypatch, tmp_path, outputs, level, told):
    for name, words in outputs.items():
        (tmp_path / name).write_text(words)
    (tmp_path / "docker").write_text(f'#!/bin/sh\nexec cat "{tmp_path}/$1"\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(paths, "in_stack_container", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name == "docker" else None)
    line = doctor.engine()
    assert line.level == level
    assert told in line.found


@pytest.mark.parametrize(
    ("problem", "level", "told", "fix"),
    [
        ("", "ok", "ENGINE=podman make up", ""),
        (
            "newuidmap is missing: sudo apt install uidmap",
            "warning",
            "newuidmap is missing",
            "sudo apt install uidmap",
        ),
    ],
)
def test_podman_is_named_with_its_limit_where_no_docker_engine_answers(
    monkeypatch, problem, level, told, fix
):
    monkeypatch.setattr(paths, "in_stack_container", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        doctor, "_output", lambda *command: problem if "podman_problem" in str(command) else ""
    )
    line = doctor.engine()
    assert (line.level, line.fix) == (level, fix)
    assert told in line.found


def test_without_docker_the_local_engine_is_named(monkeypatch):
    monkeypatch.setattr(paths, "in_stack_container", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor.engine() == doctor.Line("engine", "ok", "no Docker here: the local engine")


def test_the_container_s_limit_counts_where_it_is_the_smaller_one(monkeypatch):
    memory = namedtuple("Memory", "total available")
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: memory(64 * GIB, 60 * GIB))
    monkeypatch.setattr(system, "memory_limit", lambda: 8 * GIB)
    monkeypatch.setattr(system, "memory_used", lambda: 3 * GIB)
    assert doctor.memory() == doctor.Line("memory", "ok", "5.0 of 8.0 GiB free, a limit", doctor.memory().fix)
    monkeypatch.setattr(system, "memory_limit", lambda: 2 * GIB)
    assert doctor.memory().level == "warning"
    monkeypatch.setattr(system, "memory_limit", lambda: None)
    assert doctor.memory().found == "60.0 of 64.0 GiB free"


def test_the_cpus_limit_is_told(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(system, "cpu_limit", lambda: 0.5)
    assert (doctor.processors().level, doctor.processors().found) == ("warning", "8, limited to 0.5")
    monkeypatch.setattr(system, "cpu_limit", lambda: None)
    assert (doctor.processors().level, doctor.processors().found) == ("ok", "8")


@pytest.mark.parametrize(("free", "level"), [(100 * GIB, "ok"), (2 * GIB, "warning"), (GIB // 4, "error")])
def test_a_nearly_full_disk_is_told(free, level):
    assert doctor.disk(free).level == level


def test_an_engine_s_small_shared_memory_is_told(monkeypatch, tmp_path):
    usage = namedtuple("Usage", "total")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(64 << 20))
    assert doctor.shared_memory(tmp_path).level == "warning"
    assert "JUPYTER_SHM" in doctor.shared_memory(tmp_path).fix
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(GIB))
    assert doctor.shared_memory(tmp_path).level == "ok"
    assert doctor.shared_memory(tmp_path / "missing").level == "warning"


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        ours = self.path == "/api" and self.headers["Host"] == "localhost"  # the services refuse other names
        self.wfile.write(b'{"version": "2.21.0"}' if ours else b"<html>")

    def log_message(self, *args) -> None:
        pass


def test_a_port_is_free_or_ours_or_taken():
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        number = server.server_port
        ours = doctor.port("JUPYTER_PORT", "127.0.0.1", number, "/api", b"version")
        taken = doctor.port("TENSORBOARD_PORT", "127.0.0.1", number, "/data/environment", b"data_location")
        server.shutdown()
    free = doctor.port("JUPYTER_PORT", "127.0.0.1", number, "/api", b"version")
    assert (ours.level, ours.found) == ("ok", "JupyterLab answers")
    assert (taken.level, taken.fix) == ("warning", f"choose another: TENSORBOARD_PORT={number + 1} in .env")
    assert (free.level, free.found) == ("ok", "free for JupyterLab")


def test_a_port_that_speaks_no_http_is_taken(monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = doctor.port("JUPYTER_PORT", "127.0.0.1", listener.getsockname()[1], "/api", b"version")
    assert line.level == "warning"


def test_a_port_comes_from_the_environment_or_the_running_stack_or_the_settings_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAINLAB_ROOT", str(tmp_path))
    monkeypatch.delenv("JUPYTER_PORT", raising=False)
    port = lambda: next(doctor.ports()).subject.removeprefix("port ")  # noqa: E731
    assert port() == "8888"
    (tmp_path / "stack").symlink_to(CHECKOUT / "stack")
    (tmp_path / ".env").write_text("# JUPYTER_PORT=1\nexport JUPYTER_PORT = '9001' # mine\n")
    assert port() == "9001"
    (tmp_path / ".stack").mkdir()
    (tmp_path / ".stack/jupyter.port").write_text("9003\n")
    assert port() == "9003"
    monkeypatch.setenv("JUPYTER_PORT", "9002")
    assert port() == "9002"


@pytest.mark.parametrize(
    ("variable", "value", "subject"),
    [
        ("TENSORBOARD_AT", "tensorboard:6006", "port 6006"),
        ("TENSORBOARD_AT", ".stack/tensorboard.sock", "TensorBoard"),
        ("TENSORBOARD_PORT", "off", "TensorBoard"),
        ("TENSORBOARD_PORT", "7000", "port 7000"),
    ],
)
def test_tensorboard_is_asked_where_it_is_and_may_have_no_port(monkeypatch, variable, value, subject):
    for name in ("TENSORBOARD_AT", "TENSORBOARD_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    _, line = doctor.ports()
    assert (line.subject, line.level) == (subject, "ok")


def test_folders_that_are_missing_or_closed_are_told_with_the_command_that_mends(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAINLAB_ROOT", str(tmp_path))
    for name in ("LOGS", "DATA", "MODELS", "NOTEBOOKS"):
        monkeypatch.delenv(f"TRAINLAB_{name}", raising=False)
    for name in ("logs", "data", "models"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "data")
    logs, data, models, notebooks = doctor.permissions()
    assert (logs.level, models.level) == ("ok", "ok")
    assert (data.level, "chown" in data.fix) == ("error", True)
    assert (notebooks.level, notebooks.fix) == ("error", f"mkdir -p {tmp_path / 'notebooks'}")


def test_the_hub_is_reachable_or_not_or_not_wanted(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HTTPServer(("127.0.0.1", 0), Page) as server:  # answers HEAD with 501: it answers
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert doctor.hub(address) == doctor.Line("hub", "ok", f"{address} answers")
        server.shutdown()
    unreachable = doctor.hub(address)
    assert unreachable.level == "warning"
    assert "backbone=minilm" in unreachable.fix
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.hub(address).level == "ok"


def test_versions_below_the_oldest_safe_ones_are_errors(monkeypatch):
    monkeypatch.setattr(doctor, "OLDEST", {"torch": "99", "pytest": "1.0", "no-such-package": "1"})
    assert [line.level for line in doctor.versions()] == ["error", "ok", "error"]


def test_the_command_prints_each_line_and_fails_for_an_error_alone(monkeypatch, capsys):
    from trainlab import cli

    fine, bad = (
        doctor.Line("disk", "ok", "[9] GiB", "clean"),
        doctor.Line("data", "error", "closed", "open it"),
    )
    for lines, code in (([fine], 0), ([fine, bad], 1)):
        monkeypatch.setattr(doctor, "examine", lambda lines=lines: iter(lines))
        for words in (["doctor"], ["doctor", "--format", "json"]):
            monkeypatch.setattr(sys, "argv", ["trainlab", *words])
            with pytest.raises(SystemExit) as end:
                cli.main()
            assert (end.value.code or 0) == code
    text, _, printed = capsys.readouterr().out.rpartition("[\n")
    assert [line["subject"] for line in json.loads("[" + printed)] == ["disk", "data"]
    assert "ok      disk: [9] GiB\n" in text
    assert "fix: open it" in text
    assert "fix: clean" not in text


def test_the_whole_examination_works_on_this_machine(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    subjects = [line.subject for line in doctor.examine()]
    assert subjects[:6] == ["engine", "GPU", "memory", "CPUs", "disk", "shared memory"]
    assert "torch" in subjects


@pytest.mark.parametrize(("torn", "mend"), [(True, "mv"), (False, "rm")])
def test_a_notebook_whose_saving_was_killed_is_named_with_its_copy(monkeypatch, tmp_path, torn, mend):
    monkeypatch.setenv("TRAINLAB_NOTEBOOKS", str(tmp_path))
    assert list(doctor.unfinished_saves()) == []
    whole = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    (tmp_path / "news.ipynb").write_text("" if torn else whole)
    (tmp_path / ".~news.ipynb").write_text(whole)
    (line,) = doctor.unfinished_saves()
    assert (line.subject, line.level) == ("news.ipynb", "warning")
    assert f"{mend} '{tmp_path}/.~news.ipynb'" in line.fix  # quoted: a shell knows ~


def test_in_a_project_of_one_s_own_nothing_of_the_stack_is_missed(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLAB_ROOT", str(tmp_path))
    for name in ("LOGS", "DATA", "NOTEBOOKS"):
        monkeypatch.delenv(f"TRAINLAB_{name}", raising=False)
    monkeypatch.setattr(paths, "in_stack_container", lambda: False)
    monkeypatch.setattr(doctor, "OLDEST", {"none-of-this-name": "1", "torch": "99"})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = {line.subject: line for line in doctor.examine()}
    assert not any(line.level == "error" for line in found.values())
    assert not any(name.startswith("port") or name in ("engine", "data", "notebooks") for name in found)
    assert found["logs"].found == f"{tmp_path / 'logs'} is made with the first run"
    assert found["torch"].fix == 'at least 99: pip install "torch>=99"'
    assert "none-of-this-name" not in found
