from __future__ import annotations

import os
import subprocess
import sys
import time
import types

import pytest

from trainlab import system


def git(folder, *words):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_clean_checkout_is_its_commit(project):
    assert system.git(project) == {"commit": git(project, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("name", ["a.py", "new.py"])
def test_a_changed_or_a_new_file_makes_it_dirty(project, name):
    (project / name).write_text("2")
    assert system.git(project)["dirty"] is True


def test_code_in_a_folder_of_a_repository_is_of_that_repository(project):
    (project / "deep" / "er").mkdir(parents=True)
    (project / "deep" / "er" / "b.py").write_text("1")
    commit = git(project, "rev-parse", "HEAD")
    assert system.git(project / "deep" / "er" / "b.py") == {"commit": commit, "dirty": True}
    assert system.git(project / "a.py")["commit"] == system.git(project / "deep")["commit"] == commit


def test_what_a_repository_ignores_is_not_its_code(project):
    (project / ".git/info/exclude").write_text(".venv\nmine.py\n")
    (project / ".venv" / "lib").mkdir(parents=True)
    (project / "mine.py").write_text("1")
    assert system.git(project / ".venv" / "lib") is None
    assert system.git(project / "mine.py") is None
    assert system.git(project)["dirty"] is False


def test_another_user_s_repository_is_not_asked(project, monkeypatch):
    # git's own switch for its tests: as if somebody else owned the folder, whose settings may name commands
    run = subprocess.run
    somebody = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    monkeypatch.setattr(subprocess, "run", lambda *a, env, **k: run(*a, env=env | somebody, **k))
    assert system.git(project) is None
    monkeypatch.setenv("TRAINLAB_ROOT", str(project))
    assert system.git(project)["dirty"] is False


def test_a_hook_that_points_git_elsewhere_changes_nothing(project, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert system.git(project)["dirty"] is False


def test_without_a_repository_a_commit_or_git_there_is_no_code_version(tmp_path, monkeypatch):
    assert system.git(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert system.git(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert system.git(tmp_path) is None


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["train.py", "--lr", "0.1"], "train.py --lr 0.1"),
        (["train.py", "--hub-token", "abc"], "train.py --hub-token '***'"),
        (["train.py", "API_KEY=abc", "monkey=b"], "train.py 'API_KEY=***' monkey=b"),
        (["a b.py"], "'a b.py'"),
    ],
)
def test_the_command_hides_what_looks_like_a_secret(monkeypatch, words, shown):
    monkeypatch.setattr(sys, "argv", words)
    assert system.command() == shown


def test_gpus_are_asked_of_nvidia_smi_where_torch_has_not_started_cuda(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200'\necho 'NVIDIA H200'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert system.hardware()["gpus"] == ["NVIDIA H200", "NVIDIA H200"]
    tool.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert system.hardware()["gpus"] == []


def test_gpus_are_asked_of_torch_where_it_has_started_cuda(monkeypatch):
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 1, get_device_name=lambda index: f"GPU {index}"
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert system.hardware()["gpus"] == ["GPU 0"]


def test_the_machine_and_the_packages_are_named():
    found = system.hardware()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert {"python", "torch", "numpy"} <= set(system.packages())


def test_what_was_installed_since_the_process_began_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, age in (("my_tool-1.2", 0), ("older-3.0", 10**6)):
        folder = tmp_path / f"{name}.dist-info"
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    found = system.installed_since_start()
    assert found.get("my-tool") == "1.2"
    assert "older" not in found
