"""An archive from elsewhere is read as if an enemy had written it."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile

import pytest

from archives import ours_and_theirs, refused
from runs_folder import call
from trainlab.cli import life
from trainlab.errors import UserError
from trainlab.runs import archive


@pytest.fixture
def logs(tmp_path):
    return ours_and_theirs(tmp_path / "logs")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs.zip"


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
