"""Freezing made-up data: packed once, used when the settings match, refused when they don't."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from full_disk import largest_file
from trainlab import files, freezing
from trainlab.config import Config
from trainlab.errors import UserError
from trainlab.freezing import Recipe, freeze, thawed


class Settings(Config):
    data: str = "toy"
    size: int = 3
    learning_rate: float = 0.1


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLAB_DATA", str(tmp_path))
    return tmp_path


def recipe(raw: dict[str, str] | None = None, **settings: object) -> Recipe:
    config = Settings(**settings)

    def prepare(folder: Path, report) -> None:
        (folder / "deep").mkdir()
        (folder / "numbers.bin").write_bytes(bytes(range(config.size)))
        (folder / "deep" / "words.txt").write_text("a b c")
        report("preparing", 1, 1)

    return Recipe("toy", config, ("data", "size"), {"raw.txt": "1"} if raw is None else raw, prepare)


def left(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "frozen").iterdir())


def damage(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_without_an_archive_there_is_nothing_to_thaw():
    assert thawed(recipe()) is None


def test_what_was_frozen_is_thawed_whole(data):
    seen = []
    frozen = freeze(recipe(), lambda *step: seen.append(step))
    assert frozen.path == data / "frozen" / "toy-toy.zip"
    assert (len(frozen.files), frozen.size) == (2, 8)
    assert seen[0] == ("preparing", 1, 1)
    assert seen[-1] == ("packing toy-toy.zip", 8, 8)
    folder = thawed(recipe())
    assert (folder / "numbers.bin").read_bytes() == b"\0\1\2"
    assert (folder / "deep" / "words.txt").read_text() == "a b c"
    assert left(data) == [folder.name, "toy-toy.zip"]


def test_the_same_settings_give_the_same_bytes(data):
    digests = []
    for moment in (1e9, 1.5e9):
        path = freeze(recipe()).path
        os.utime(path, (moment, moment))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_settings_that_do_not_make_the_data_do_not_matter():
    freeze(recipe())
    assert thawed(recipe(learning_rate=0.5)) is not None


def test_other_settings_are_refused_by_key_and_both_values():
    freeze(recipe())
    with pytest.raises(UserError) as error:
        thawed(recipe(size=4))
    assert "size: frozen 3, wanted 4" in str(error.value)
    assert "trainlab data freeze toy size=4" in str(error.value)
    assert "rm " in str(error.value)


def test_raw_data_that_changed_is_refused_and_raw_data_that_is_not_here_is_not_missed():
    freeze(recipe())
    with pytest.raises(UserError, match=r"raw\.txt: changed since"):
        thawed(recipe(raw={"raw.txt": "2"}))
    assert thawed(recipe(raw={})) is not None


def test_another_layout_is_refused():
    freeze(recipe())
    with pytest.raises(UserError, match="layout: frozen 1, wanted 2"):
        thawed(replace(recipe(), version=2))


def test_each_data_has_its_own_archive(data):
    freeze(recipe())
    freeze(recipe(data="/home/me/own.txt", size=2))
    assert thawed(recipe()) is not None
    assert (thawed(recipe(data="/home/me/own.txt", size=2)) / "numbers.bin").read_bytes() == b"\0\1"


def test_freezing_again_replaces_what_was_frozen(data):
    freeze(recipe())
    thawed(recipe())
    freeze(recipe(size=4))
    assert left(data) == ["toy-toy.zip"]
    assert (thawed(recipe(size=4)) / "numbers.bin").read_bytes() == b"\0\1\2\3"


def test_an_unpacked_file_that_was_changed_is_mended():
    freeze(recipe())
    (thawed(recipe()) / "numbers.bin").write_bytes(b"\0\1\3")
    assert (thawed(recipe()) / "numbers.bin").read_bytes() == b"\0\1\2"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"\0" * len(content),
        lambda content: content.replace(b"a b c", b"a b d"),
        lambda content: content.replace(b'"files"', b'"filez"'),
    ],
)
def test_a_damaged_archive_is_told_and_nothing_is_unpacked(data, change):
    damage(freeze(recipe()).path, change)
    with pytest.raises(UserError, match=r"toy-toy\.zip is damaged"):
        thawed(recipe())
    assert left(data) == ["toy-toy.zip"]


def forge(path: Path, entry: zipfile.ZipInfo, content: bytes) -> None:
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr(entry, content)


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "deep/../../out.txt"])
def test_an_entry_that_leads_out_of_the_folder_is_refused(data, name):
    forge(freeze(recipe()).path, zipfile.ZipInfo(name), b"out")
    with pytest.raises(UserError, match=r"leads out of its folder|a link or a device"):
        thawed(recipe())
    assert left(data) == ["toy-toy.zip"]
    assert list(data.rglob("out.txt")) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(kind):
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (kind | 0o777) << 16
    forge(freeze(recipe()).path, entry, b"/etc/passwd")
    with pytest.raises(UserError, match=r"leads out of its folder|a link or a device"):
        thawed(recipe())


def test_a_file_that_the_manifest_does_not_list_is_refused():
    forge(freeze(recipe()).path, zipfile.ZipInfo("more.txt"), b"more")
    with pytest.raises(UserError, match="not those that it lists"):
        thawed(recipe())


def test_a_bomb_is_refused():
    entry = zipfile.ZipInfo("bomb")
    entry.compress_type = zipfile.ZIP_DEFLATED
    forge(freeze(recipe()).path, entry, b"0" * 1_000_000)
    with pytest.raises(UserError, match="would unpack to more than"):
        thawed(recipe())


def test_a_full_disk_is_told_and_nothing_stays(data, monkeypatch):
    frozen = freeze(recipe())
    before = frozen.path.read_bytes()
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(UserError, match="5 are free"):
        freeze(recipe(size=4))
    with pytest.raises(UserError, match="5 are free"):
        thawed(recipe())
    assert left(data) == ["toy-toy.zip"]
    assert frozen.path.read_bytes() == before


def test_a_disk_that_fills_up_meanwhile_is_told_and_nothing_half_done_stays(data):
    before = freeze(recipe(size=255)).path.read_bytes()
    with largest_file(200), pytest.raises(UserError, match="can't be written: File too large"):
        thawed(recipe(size=255))
    with largest_file(200), pytest.raises(UserError, match="can't be written: File too large"):
        freeze(recipe(size=100))  # its file has room, the archive has not
    assert left(data) == ["toy-toy.zip"]
    assert (data / "frozen" / "toy-toy.zip").read_bytes() == before


def test_preparing_that_fails_leaves_nothing(data):
    def fail(folder, report):
        (folder / "half").write_text("half")
        raise UserError("no raw data")

    with pytest.raises(UserError, match="no raw data"):
        freeze(replace(recipe(), prepare=fail))
    assert left(data) == []


def test_archives_are_listed_with_what_made_them():
    freeze(recipe())
    assert [freezing.read(path).settings for path in freezing.archives()] == [{"data": "toy", "size": 3}]


@pytest.mark.parametrize("name", [".git/config", "../out.txt", "/etc/passwd", "a\nb"])
def test_a_manifest_that_names_what_nobody_should_write_is_refused(name):
    path = freeze(recipe()).path
    said = {"version": 1, "settings": {}, "raw": {}, "files": {name: ["0" * 64, 1]}}
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(freezing.MANIFEST, json.dumps(said))
    with pytest.raises(UserError, match="is damaged: the entry"):
        freezing.read(path)


@pytest.mark.parametrize("manifest", [b"[" * 100_000, b" " * (65 << 20)], ids=["nested", "huge"])
def test_a_manifest_without_end_is_refused(manifest):
    path = freeze(recipe()).path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(freezing.MANIFEST, manifest)
    with pytest.raises(UserError, match=r"is damaged: (frozen\.json is too large|maximum recursion)"):
        freezing.read(path)
