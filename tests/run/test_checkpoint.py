from __future__ import annotations

import copy
import os
import pickle
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from trainlab import files
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.checkpoint import CheckpointError

STATE = {"model": {"weight": torch.arange(1000.0)}, "epoch": 3, "names": ["a", "b"]}


@pytest.fixture
def path(tmp_path):
    """A saved checkpoint."""
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.save(STATE, path)
    return path


def content(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def assert_loads(path):
    found = checkpoint.load(path)
    assert (found["epoch"], found["names"]) == (3, ["a", "b"])
    assert torch.equal(found["model"]["weight"], torch.arange(1000.0))


def test_what_is_saved_is_loaded(path):
    assert_loads(path)
    assert sorted(content(path.parent)) == ["last.ckpt", "last.ckpt.sha256"]


def test_an_optimizer_is_loaded_as_it_was_saved(tmp_path):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    checkpoint.save({"optimizer": optimizer.state_dict()}, tmp_path / "a.ckpt")
    found = checkpoint.load(tmp_path / "a.ckpt")["optimizer"]
    assert torch.equal(found["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_sha256sum_agrees_with_the_digest_beside_it(path):
    command = ["sha256sum", "-c", "last.ckpt.sha256"]
    assert "OK" in subprocess.check_output(command, cwd=path.parent, text=True)


@pytest.mark.parametrize("place", [10, 1000, -100])
def test_a_flipped_byte_is_refused(path, place):
    broken = bytearray(path.read_bytes())
    broken[place] ^= 1
    path.write_bytes(broken)
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"garbage" * 100])
def test_a_truncated_or_overwritten_file_is_refused(path, damage):
    path.write_bytes(damage)
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"garbage" * 100, pickle.dumps({"a": 1}), b"\x80"])
def test_a_file_that_is_no_checkpoint_is_the_same_error_even_with_a_digest(path, damage):
    path.write_bytes(damage)
    sign(path)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(path)


def test_a_missing_digest_is_an_error_that_says_how_to_make_one(path):
    checkpoint.digest_file(path).unlink()
    with pytest.raises(
        CheckpointError, match=r"no SHA-256 beside it.*sha256sum last.ckpt > last.ckpt.sha256"
    ):
        checkpoint.load(path)


@pytest.mark.parametrize("digest", ["", "\n", "not a digest", "0" * 64, "\xff"])
def test_a_wrong_digest_is_refused(path, digest):
    checkpoint.digest_file(path).write_text(digest, encoding="latin-1")
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_a_missing_checkpoint_is_an_error_for_people(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "none.ckpt")


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


def sign(path):
    subprocess.run(f"sha256sum {path.name} > {path.name}.sha256", shell=True, cwd=path.parent, check=True)


def test_a_hostile_pickle_is_refused_and_not_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Hostile()}, path)
    sign(path)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)
    assert not (tmp_path / "pwned").exists()


def bomb(path, name, size):
    """Pack a checkpoint so that one entry of a few kB unfolds to `size` bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/byteorder", "little")
        with packed.open(f"archive/{name}", "w") as entry:
            for _ in range(size >> 20):
                entry.write(b"N0" * (1 << 19))


def overlapping(path):
    """Let many entries of a zip file mean the same bytes: none is packed, and all together are huge."""
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("archive/data.pkl", b"N0" * 10_000)
        first = packed.filelist[0]
        packed.filelist += [copy.copy(first) for _ in range(100)]


@pytest.mark.parametrize("entry", ["data.pkl", "data/0", "version"])
def test_a_checkpoint_that_unfolds_to_more_than_it_is_is_refused_before_memory_is_taken(
    path, entry, monkeypatch
):
    bomb(path, entry, 64 << 20)
    sign(path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unfolded"))
    with pytest.raises(CheckpointError, match="would unfold to 67,"):
        checkpoint.load(path)


def test_entries_that_share_their_bytes_are_refused(path):
    overlapping(path)
    sign(path)
    with pytest.raises(CheckpointError, match="would unfold to"):
        checkpoint.load(path)


def test_a_huge_pickle_is_neither_loaded_nor_saved(path, monkeypatch):
    before = content(path.parent)
    monkeypatch.setattr(checkpoint, "LARGEST_PICKLE", 5000)
    with pytest.raises(CheckpointError, match="expected 5,000 at most"):
        checkpoint.save({"order": list(range(10_000))}, path)
    assert content(path.parent) == before
    monkeypatch.setattr(checkpoint, "LARGEST_PICKLE", 5)
    with pytest.raises(CheckpointError, match="expected 5 at most"):
        checkpoint.load(path)


def test_torchs_older_format_whose_sizes_nobody_can_check_is_refused(path):
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    sign(path)
    with pytest.raises(CheckpointError, match="not a checkpoint that can be loaded"):
        checkpoint.load(path)


def test_what_load_would_refuse_is_not_saved_and_the_one_before_is_kept(path):
    before = content(path.parent)
    with pytest.raises(
        CheckpointError, match=r"it would hold torch\.nn\.modules\.linear\.Linear.*state_dict"
    ):
        checkpoint.save({"model": torch.nn.Linear(1, 1)}, path)
    assert content(path.parent) == before


def refuse(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_keeps_the_checkpoint_before_and_leaves_no_litter(path, monkeypatch, call):
    monkeypatch.setattr(*((os, "fsync", refuse) if call == "fsync" else (Path, "replace", refuse)))
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoint.save({"model": {}}, path)
    monkeypatch.undo()
    assert_loads(path)
    assert sorted(content(path.parent)) == ["last.ckpt", "last.ckpt.sha256"]


@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_a_process_that_dies_between_two_renames_leaves_a_checkpoint_that_loads(path, monkeypatch, dies_at):
    replace, calls = Path.replace, []

    def die(self, target):
        calls.append(target)
        if len(calls) == dies_at:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(STATE | {"new": 1}, path)
    monkeypatch.undo()
    assert_loads(path)


def test_a_full_disk_is_named_whatever_torch_makes_of_it(path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file, self.left = file, 2000

        def write(self, some):
            self.left -= len(some)
            return len(some) if self.left > 0 else refuse()

        def flush(self):
            pass

    monkeypatch.setattr(checkpoint, "_Hashing", Full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoint.save(STATE, path)
    assert_loads(path)


def test_a_folder_that_is_a_file_is_an_error_for_people(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="can't be written"):
        checkpoint.save(STATE, tmp_path / "checkpoints" / "last.ckpt")


def test_the_bytes_are_on_disk_before_the_name_changes_and_then_the_name_is(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, Path.replace

    def synced(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(self, target):
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    files.write(tmp_path / "a", b"1")
    assert calls == ["file", "rename", "folder"]


def test_an_atomic_write_keeps_the_mode_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        files.write(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def step_file(folder, step):
    path = folder / "checkpoints" / f"step-{step:08d}.ckpt"
    checkpoint.save(STATE | {"global_step": step}, path)
    return path


def test_an_alias_is_the_same_file_under_a_second_name_with_a_digest_of_its_own(tmp_path):
    path = step_file(tmp_path, 3)
    alias = checkpoint.alias(path, "last.ckpt")
    assert alias.samefile(path)
    newer = step_file(tmp_path, 6)
    checkpoint.alias(newer, "last.ckpt")
    checkpoint.alias(newer, "last.ckpt")  # once more: both names are one file already
    checkpoint.remove(path)
    assert checkpoint.load(alias)["global_step"] == 6
    names = [f"{name}{suffix}" for name in ("last.ckpt", newer.name) for suffix in ("", ".sha256")]
    assert sorted(content(path.parent)) == sorted(names)
    assert "OK" in subprocess.check_output(
        ["sha256sum", "-c", "last.ckpt.sha256"], cwd=path.parent, text=True
    )


def test_where_there_are_no_links_an_alias_is_a_copy(tmp_path, monkeypatch):
    path = step_file(tmp_path, 3)
    monkeypatch.setattr(os, "link", refuse)
    alias = checkpoint.alias(path, "last.ckpt")
    assert not alias.samefile(path)
    assert checkpoint.load(alias)["global_step"] == 3


@pytest.mark.parametrize("dies_at", [1, 2, 3])
@pytest.mark.parametrize("links", [True, False])
def test_a_process_that_dies_while_it_names_leaves_a_name_that_loads(tmp_path, monkeypatch, dies_at, links):
    checkpoint.alias(step_file(tmp_path, 3), "last.ckpt")
    newer = step_file(tmp_path, 6)
    replace, calls = Path.replace, []

    def die(self, target):
        calls.append(target)
        if len(calls) == dies_at:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", die)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.alias(newer, "last.ckpt")
    monkeypatch.undo()
    assert checkpoint.load(newer.with_name("last.ckpt"))["global_step"] == (6 if dies_at == 3 else 3)


def test_a_disk_that_refuses_an_alias_is_one_error_and_the_old_name_loads(tmp_path, monkeypatch):
    alias = checkpoint.alias(step_file(tmp_path, 3), "last.ckpt")
    newer = step_file(tmp_path, 6)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(CheckpointError, match=r"last\.ckpt can't be written.*No space left"):
        checkpoint.alias(newer, "last.ckpt")
    monkeypatch.undo()
    assert checkpoint.load(alias)["global_step"] == 3
    assert not list(alias.parent.glob(".*.tmp"))


def test_the_newest_whole_checkpoint_is_found_by_its_step(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    for step in (9, 10, 100):
        path = step_file(tmp_path, step)
    checkpoint.save(STATE, path.with_name("best.ckpt"))
    checkpoint.save(STATE, path.with_name("best-step-00000999.ckpt"))
    assert checkpoint.newest(tmp_path) == path


def test_the_last_checkpoint_of_an_earlier_version_counts(path):
    assert checkpoint.newest(path.parent.parent) == path


def test_damaged_checkpoints_are_named_and_the_one_before_is_used(tmp_path, capsys):
    whole, damaged, undigested = (step_file(tmp_path, step) for step in (3, 6, 9))
    checkpoint.alias(damaged, "last.ckpt")
    damaged.write_bytes(b"PK")
    checkpoint.digest_file(undigested).unlink()
    assert checkpoint.newest(tmp_path) == whole
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"warning: {undigested}: no SHA-256 beside it")
    assert second.startswith(f"warning: {damaged} is damaged")


def test_a_copy_of_a_damaged_checkpoint_goes_before_an_older_one_and_a_stale_copy_behind(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "link", refuse)
    steps = [step_file(tmp_path, step) for step in (3, 6, 9)]
    copy = checkpoint.alias(steps[1], "last.ckpt")
    assert checkpoint.full_states(tmp_path) == [steps[2], steps[1], copy, steps[0]]
    for damaged in steps[1:]:
        damaged.write_bytes(b"")
    assert checkpoint.newest(tmp_path) == copy
    checkpoint.remove(steps[1])
    assert checkpoint.full_states(tmp_path) == [steps[2], steps[0], copy]


def test_a_run_without_arrays_imports_no_numpy(tmp_path):
    code = (
        "import sys, trainlab\nimport trainlab.headless.worker\n"
        "with trainlab.Run('tiny', {'x': 1.0}, monitor=False) as run:\n"
        "    run.log({'val/loss': 1.0}, 0)\n    run.save({'step': 1})\n"
        "print([each for each in ('numpy', 'torch', 'pandas') if each in sys.modules])\n"
    )
    environment = os.environ | {"TRAINLAB_LOGS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_checkpoints_are_listed_with_their_digests_and_without_being_read(path, tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "unsealed.ckpt").write_bytes(b"x")
    (folder / "link.ckpt").symlink_to(path)
    os.mkfifo(folder / "pipe.ckpt")
    (folder / "checkpoint-240").mkdir()
    (folder / "checkpoint-240" / "model.bin").write_bytes(b"x")
    checkpoint.seal(folder / "checkpoint-240")
    found = {each.name: each for each in checkpoint.listed(tmp_path)}
    assert list(found) == [f"checkpoints/{name}" for name in ("checkpoint-240", "last.ckpt", "unsealed.ckpt")]
    assert len(found["checkpoints/last.ckpt"].digest) == 64
    assert found["checkpoints/last.ckpt"].size == path.stat().st_size
    assert "SHA256SUMS" in found["checkpoints/checkpoint-240"].digest
    assert not found["checkpoints/unsealed.ckpt"].digest
    assert checkpoint.listed(tmp_path / "none") == []
