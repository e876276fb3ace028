from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import zipfile

import pytest
from typer.testing import CliRunner

from full_disk import largest_file
from runs_folder import foreign, make
from trainlab import files
from trainlab.cli import life
from trainlab.cli.runs import app
from trainlab.errors import UserError
from trainlab.run import lock, remarks, resume
from trainlab.runs import archive, listing, trash

SMALL_DISK = 2 << 20  # bytes


@pytest.fixture
def logs(tmp_path):
    """A run of ours and a foreign one."""
    logs = tmp_path / "logs"
    folder = foreign(make(logs, "news/a", tags=["baseline"]))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(bytes(range(256)) * 40)
    foreign(logs / "keras" / "deep" / "train")
    return logs


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs.zip"


def call(logs, *words):
    done = CliRunner().invoke(app, ["--logs", str(logs), *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def content(folder):
    """Return every file below a folder but our locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != lock.RUN)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def forge(file, entries, runs):
    """Write an archive whose digests are right, whatever its names are."""
    said = {}
    with zipfile.ZipFile(file, "w") as packed:
        for label, names in runs.items():
            said[label] = {
                name: [hashlib.sha256(each).hexdigest(), len(each)] for name, each in names.items()
            }
        for entry, each in entries:
            packed.writestr(entry, each)
        packed.writestr(archive.MANIFEST, json.dumps({"format": "trainlab-runs-1", "runs": said}))


def refused(file, logs, match):
    """Restore, which must fail and leave everything as it was."""
    before = content(logs.parent)
    with pytest.raises(UserError, match=match):
        call(logs, "restore", file)
    assert content(logs.parent) == before
    assert not list((logs / trash.FOLDER).glob("*"))


@pytest.mark.parametrize("runs", [["news/a"], ["keras/deep/train"], ["a", "train"]])
def test_runs_ours_and_foreign_come_back_from_one_file_as_they_were(logs, file, runs):
    remarks.tag(logs / "keras" / "deep" / "train", ["v2"])
    before = content(logs)
    rows = {row.label: row for row in listing.rows(logs)}
    call(logs, "archive", *runs, "-o", file)
    assert content(logs) == before, "the runs stay"
    call(logs, "delete", "--purge", "--yes", *runs)
    call(logs, "restore", file)
    assert content(logs) == before
    assert {row.label: row for row in listing.rows(logs)} == rows


def test_an_archive_is_brought_to_another_machine(logs, file, tmp_path):
    call(logs, "archive", "a", "train", "-o", file)
    other = tmp_path / "other" / "logs"
    archive.unpack(file, other)
    assert content(other) == content(logs)


def test_the_same_runs_give_the_same_bytes_without_what_a_process_at_work_needs(logs, file):
    call(logs, "archive", "a", "train", "-o", file)
    first = file.read_bytes()
    with zipfile.ZipFile(file) as packed:
        names = packed.namelist()
        said = json.loads(packed.read(archive.MANIFEST))["runs"]
    assert sorted(said) == ["keras/deep/train", "news/a"]
    assert "runs/news/a/checkpoints/last.ckpt" in names
    file.unlink()
    for name in archive.LEFT_OUT:
        (logs / "news" / "a" / name).touch()
    lock.keep_reserve(logs / "news" / "a")
    os.utime(logs / "news" / "a" / "run.json", (0, 0))
    call(logs, "archive", "train", "a", "train", "-o", file)
    assert file.read_bytes() == first


def test_an_existing_file_is_not_overwritten(logs, file):
    file.write_text("precious")
    with pytest.raises(UserError, match="exists"):
        call(logs, "archive", "a", "-o", file)
    assert file.read_text() == "precious"


def test_a_file_inside_its_own_run_is_refused(logs):
    with pytest.raises(UserError, match="would lie in the run"):
        call(logs, "archive", "a", "-o", logs / "news" / "a" / "x.zip")


def test_a_run_that_is_at_work_and_an_unknown_one_are_refused(logs, file):
    held = lock.hold(logs / "news" / "a")
    with pytest.raises(UserError, match="still at work"):
        call(logs, "archive", "train", "a", "-o", file)
    held.release()
    with pytest.raises(UserError, match=r"Did you mean 'train'\?"):
        call(logs, "archive", "a", "trian", "-o", file)
    assert not file.exists()


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe", "backslash"])
def test_what_a_file_cannot_hold_is_named_rather_than_lost(logs, file, kind):
    folder = logs / "news" / "a"
    if kind == "pipe":
        os.mkfifo(folder / "odd")
    elif kind == "backslash":
        (folder / "o\\dd").touch()
    else:
        (folder / "odd").symlink_to(folder / ("run.json" if kind == "link" else "checkpoints"))
    with pytest.raises(UserError, match=r"Move it away|Rename it"):
        call(logs, "archive", "a", "-o", file)
    assert not file.exists()


def test_a_run_is_not_restored_over_another_and_neither_are_its_companions(logs, file):
    call(logs, "archive", "a", "train", "-o", file)
    call(logs, "delete", "--purge", "--yes", "train")
    refused(file, logs, "news/a is there already")


@pytest.mark.parametrize("name", ["../../out", "/etc/out", "runs/../../out", "C:/out", "..\\..\\out"])
def test_a_path_that_climbs_out_is_refused(logs, file, name):
    forge(file, [(name, b"x")], {"news/x": {name: b"x"}})
    refused(file, logs, "leads out of its folder")


@pytest.mark.parametrize(
    "label", ["../x", "/tmp/x", "news/../../x", ".trash/x", "", ".", "news//x", "a\\..\\x"]
)
def test_a_run_whose_name_climbs_out_is_refused(logs, file, label):
    forge(file, [(f"runs/{label}/run.json", b"{}")], {label: {"run.json": b"{}"}})
    refused(file, logs, "leads out of its folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_devices_and_pipes_are_refused(logs, file, kind):
    entry = zipfile.ZipInfo("runs/news/x/run.json")
    entry.external_attr = (kind | 0o777) << 16
    forge(file, [(entry, b"/etc/passwd")], {"news/x": {"run.json": b"/etc/passwd"}})
    refused(file, logs, "Refused")


def test_a_file_that_the_list_does_not_name_and_one_that_is_missing_are_refused(logs, file):
    entries = [("runs/news/x/run.json", b"{}"), ("runs/news/x/more", b"")]
    forge(file, entries, {"news/x": {"run.json": b"{}"}})
    refused(file, logs, "runs/news/x/more is not what it lists")
    forge(file, entries[:1], {"news/x": {"run.json": b"{}", "more": b""}})
    refused(file, logs, "runs/news/x/more is not what it lists")


def test_a_bomb_is_refused(logs, file):
    entry = zipfile.ZipInfo("runs/news/x/more")
    entry.compress_type = zipfile.ZIP_DEFLATED
    forge(file, [(entry, bytes(300 << 20))], {"news/x": {"more": b""}})
    refused(file, logs, "would unpack to more than")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_archive_of_ours_is_refused(logs, file, content):
    file.write_bytes(content)
    refused(file, logs, "is damaged")


def test_a_damaged_archive_is_refused_or_harmless_whichever_byte_it_is(logs, file, tmp_path):
    call(logs, "archive", "train", "-o", file)
    whole, expected = file.read_bytes(), content(logs / "keras")
    other = tmp_path / "other"
    for place in range(0, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            archive.unpack(file, other)
        except UserError:
            assert content(other) == {}
        else:
            assert content(other / "keras") == expected  # a byte that says nothing, of a date say
            shutil.rmtree(other)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_archive_is_refused(logs, file, part):
    call(logs, "archive", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    refused(file, logs, "is damaged")


def test_too_little_room_is_told_before_anything_is_written(logs, file, monkeypatch):
    call(logs, "archive", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(UserError, match="bytes are needed, 5 are free"):
        call(logs, "archive", "train", "-o", file.with_name("other.zip"))
    assert not file.with_name("other.zip").exists()
    refused(file, logs, "bytes are needed, 5 are free")


def test_a_disk_that_fills_up_meanwhile_is_told_and_nothing_half_done_stays(logs, file):
    (logs / "news" / "a" / "noise").write_bytes(os.urandom(200_000))
    before = content(logs.parent)
    with largest_file(100_000), pytest.raises(UserError, match="can't be written: File too large"):
        call(logs, "archive", "a", "-o", file)
    assert content(logs.parent) == before
    call(logs, "archive", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    with largest_file(100_000):
        refused(file, logs, "can't be written: File too large")


def test_a_small_disk_that_is_really_full_is_told_and_nothing_stays(logs, file, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        (logs / "news" / "a" / "noise").write_bytes(os.urandom(2 * SMALL_DISK))
        with pytest.raises(UserError, match="bytes are needed"):
            call(logs, "archive", "a", "-o", place / "runs.zip")
        call(logs, "archive", "a", "-o", file)
        with pytest.raises(UserError, match="bytes are needed"):
            archive.unpack(file, place / "logs")
        assert content(place) == {}
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_what_an_unpacking_that_was_killed_has_left_is_seen_nowhere_and_goes_with_the_trash(logs, file):
    call(logs, "archive", "a", "train", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a", "train")
    process = multiprocessing.get_context("fork").Process(target=die_unpacked, args=(file, logs))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert listing.rows(logs) == []
    left = list(content(logs))
    assert any("run.json" in name for name in left)
    assert not any("tfevents" in name for name in left), "TensorBoard would show them"
    assert call(logs, "delete", "--purge") == "The trash is empty.\n"
    assert content(logs) == {}


def die_unpacked(file, logs):
    archive._arrive = lambda *_: os._exit(9)
    archive.unpack(file, logs)


def test_a_run_that_appears_meanwhile_is_kept_and_nothing_else_changes(logs, file, monkeypatch):
    call(logs, "archive", "a", "train", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a", "train")
    extract = archive._extract
    monkeypatch.setattr(archive, "_extract", lambda *given: (extract(*given), make(logs, "news/a", seed=7)))
    with pytest.raises(UserError, match="news/a is there already"):
        archive.unpack(file, logs)
    assert [(row.label, row.record.seed) for row in listing.rows(logs)] == [("news/a", 7)]
    assert not list((logs / trash.FOLDER).iterdir())


def forged(file, names, label="news/x"):
    """Write an archive of one run with these files, whose digests are right."""
    entries = [(f"runs/{label}/{name}", b"x") for name in names]
    forge(file, entries, {label: dict.fromkeys(names, b"x")})


@pytest.mark.parametrize(
    "name",
    [
        ".git/config",
        ".git",
        ".GIT/config",
        "deep/.git/config",
        ".git ./config",
        "git~1/config",
        ".hg/hgrc",
        ".env",
        ".env.local",
        ".envrc",
        ".vscode/tasks.json",
    ],
)
def test_what_git_a_shell_or_an_editor_would_obey_is_neither_packed_nor_unpacked(logs, file, name):
    forged(file, ["run.json", name])
    refused(file, logs, "would obey")
    place = logs / "news" / "a" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("[core]\n\tfsmonitor = touch PWNED\n")
    with pytest.raises(UserError, match="would obey"):
        call(logs, "archive", "a", "-o", file.with_name("other.zip"))


def test_a_run_that_is_a_repository_itself_is_refused_whatever_its_name_is(logs, file):
    forged(file, ["run.json", "HEAD", "config", "objects/x", "refs/x"])
    refused(file, logs, "git would obey")
    forged(file, ["run.json", "in/head", "in/Objects/x", "in/REFS/x"])  # on a disk that knows no case
    refused(file, logs, "git would obey")


def test_an_archive_with_a_repository_whose_settings_run_a_command_leaves_nothing(logs, file):
    config = b'[core]\n\trepositoryformatversion = 0\n\tfsmonitor = "touch PWNED; false"\n'
    names = {"run.json": b"{}", ".git/HEAD": b"ref: refs/heads/main\n", ".git/config": config}
    names |= {".git/objects/x": b"x", ".git/refs/x": b"x"}
    entries = [(f"runs/news/x/{name}", each) for name, each in names.items()]
    forge(file, entries, {"news/x": names})
    refused(file, logs, "would obey")
    assert not (logs / "news" / "x").exists()
    assert not list(logs.rglob("PWNED"))


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\u202eb", "x" * 1001, "d/" * 500 + "x"])
def test_names_that_nobody_can_read_are_refused(logs, file, name):
    forged(file, ["run.json", name])
    refused(file, logs, "other systems can't have")


def test_a_name_that_is_a_file_and_a_folder_and_one_that_is_there_twice_are_refused(logs, file):
    forged(file, ["run.json", "x", "x/y"])
    refused(file, logs, "once as a file and once as a folder")
    with pytest.warns(UserWarning, match="Duplicate name"):
        forge(file, [("runs/news/x/y", b"x")] * 2, {"news/x": {"y": b"x"}})
    refused(file, logs, "two entries of that name")


def test_entries_that_share_their_bytes_are_refused(logs, file):
    names = [f"n{number}" for number in range(50)]
    forged(file, names)
    with zipfile.ZipFile(file, "a") as packed:
        large = b"x" * 20_000
        packed.writestr("runs/news/x/large", large)
        for entry in packed.filelist[:50]:
            entry.header_offset = packed.filelist[-1].header_offset
            entry.file_size = entry.compress_size = len(large)
    refused(file, logs, "share their bytes")


@pytest.mark.parametrize("listed", [1, 200_000])
def test_a_list_that_is_larger_than_its_files_is_refused(logs, file, listed):
    runs = {"news/x": {f"n{number}": ["0" * 64, 1] for number in range(listed)}}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("runs/news/x/n0", b"x")
        blanks = " " * (2 << 20 if listed == 1 else 0)
        packed.writestr(archive.MANIFEST, blanks + json.dumps({"format": "trainlab-runs-1", "runs": runs}))
    refused(file, logs, "larger than a list of its files")


def test_much_that_a_small_file_unpacks_to_is_asked_about_before(logs, file, monkeypatch):
    names = {"run.json": b"{}", "output.log": b"\r" * 3_000_000}
    entries = []
    for name, each in names.items():
        entry = zipfile.ZipInfo(f"runs/news/x/{name}")
        entry.compress_type = zipfile.ZIP_DEFLATED
        entries.append((entry, each))
    forge(file, entries, {"news/x": names})
    monkeypatch.setattr(life, "MUCH", 1_000_000)
    refused(file, logs, r"unpacks to 3.0 MB, .* times its size; .* MB are free. Nobody is here to ask")
    monkeypatch.setattr(life.sys.stdin, "isatty", lambda: True, raising=False)
    call(logs, "restore", file, "--yes")
    assert (logs / "news" / "x" / "output.log").stat().st_size == 3_000_000


def test_of_a_large_archive_of_weights_the_size_is_asked_about_too(logs, file, monkeypatch):
    call(logs, "archive", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    monkeypatch.setattr(life, "LARGE", 10_000)
    refused(file, logs, "Nobody is here to ask: add --yes")
    call(logs, "restore", "--yes", file)


def linked(logs):
    """Give the run a second and a third name for its checkpoint, as a training does, and return that."""
    place = logs / "news" / "a" / "checkpoints"
    state = place / "step-00000003.ckpt"
    (place / "last.ckpt").rename(state)
    os.link(state, place / "last.ckpt")
    (place / "best.ckpt").write_bytes(os.urandom(5000))
    return state


@pytest.mark.parametrize("links", [True, False], ids=["links", "a disk without links"])
def test_a_file_of_several_names_is_packed_once_and_has_them_again(logs, file, monkeypatch, links):
    state = linked(logs)
    state.write_bytes(os.urandom(500_000))
    before = content(logs)
    call(logs, "archive", "a", "-o", file)
    assert file.stat().st_size < 600_000
    call(logs, "delete", "--purge", "--yes", "a")
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    call(logs, "restore", file)
    assert content(logs) == before
    assert state.samefile(state.with_name("last.ckpt")) == links


@pytest.mark.parametrize(
    "links",
    [
        {"more": "absent"},
        {"more": "/etc/passwd"},
        {"more": "../../../etc/passwd"},
        {"../more": "run.json"},
        {"/tmp/more": "run.json"},
        {".git": "run.json"},
        {"run.json": "run.json"},
        {"run.json/x": "run.json"},
        {"a//b": "run.json"},
        {f"n{number}": "run.json" for number in range(10_001)},
    ],
    ids=lambda links: str(next(iter(links.items()))),
)
def test_a_link_to_what_is_not_packed_or_out_of_the_run_is_refused(logs, file, links):
    said = {"run.json": [hashlib.sha256(b"x").hexdigest(), 1]}
    known = {"format": "trainlab-runs-2", "runs": {"news/x": said}, "links": {"news/x": links}}
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("runs/news/x/run.json", b"x")
        for number in range(9999 if len(links) > 1 else 0):  # else the list is too large
            packed.writestr(f"runs/news/x/m{number}", b"")
        packed.writestr(archive.MANIFEST, json.dumps(known))
    refused(file, logs, r"Refused\.")


def test_weights_alone_are_packed_without_the_states_and_say_so(logs, file):
    linked(logs)
    call(logs, "archive", "--weights-only", "a", "-o", file)
    call(logs, "delete", "--purge", "--yes", "a")
    call(logs, "restore", file)
    folder = logs / "news" / "a"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.ckpt",
        "weights-only.txt",
    ]
    with pytest.raises(UserError, match="can't be resumed"):
        resume.starting_point(folder)


def test_a_run_without_best_weights_is_not_packed_without_its_states(logs, file):
    with pytest.raises(UserError, match="no best weights"):
        call(logs, "archive", "--weights-only", "a", "-o", file)
    assert not file.exists()
