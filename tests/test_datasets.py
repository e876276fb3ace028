"""Fetching and verifying data sets, against a server on this machine and archives made here."""

from __future__ import annotations

import hashlib
import io
import socket
import struct
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import pytest
from huggingface_hub import constants

from full_disk import largest_file
from trainlab import datasets, files, paths
from trainlab.errors import UserError

NEWS = {"MINDsmall_train/news.tsv": "N1\tsports\n" * 2000, "MINDsmall_train/deep/er.vec": "0.5\n"}


class Server(ThreadingHTTPServer):
    """Serves one content; it may ignore Range, break off, or answer with an error."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = b""
        self.ranges = True
        self.refuses_ranges = False
        self.breaks: list[int] = []  # after how many bytes each answer to come breaks off
        self.resets = False  # with a reset of the connection
        self.status = 0
        self.asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Server = self.server
        asked = self.headers["Range"]
        server.asked.append(asked)
        if server.status or (asked and server.refuses_ranges):
            self.send_error(server.status or 416)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        body = server.content[start:]
        self.send_response(206 if asked and server.ranges else 200)
        if asked and server.ranges:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        broken = bool(server.breaks)
        self.wfile.write(body[: server.breaks.pop(0)] if broken else body)
        if broken and server.resets:
            self.wfile.flush()
            time.sleep(0.2)  # what was sent before a reset arrives only if it is read in time
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.connection = socket.socket()  # which the server closes in its place

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAINLAB_DATA", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(
        "huggingface_hub.file_download.time", mock.Mock()
    )  # it sleeps a second before each retry
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(files, "BLOCK", 1000)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def packed(files: dict[str, str], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def dataset(server: Server, content: bytes, **changes) -> datasets.Dataset:
    server.content = content
    fields = {
        "address": f"http://127.0.0.1:{server.server_port}/MINDsmall_train.zip",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "part": "train",
    }
    archives = (datasets.Archive(**fields | changes),)
    return datasets.Dataset(name="mind", what="news", licence="research only", archives=archives)


def left() -> list[str]:
    """Return every file that lies in the data folder."""
    return sorted(str(path.relative_to(paths.data())) for path in paths.data().rglob("*") if path.is_file())


def test_a_data_set_is_downloaded_checked_and_unpacked(server):
    wanted = dataset(server, packed(NEWS))
    seen = []
    assert not wanted.here
    assert datasets.fetch(wanted, lambda *step: seen.append(step)) == [paths.data() / "mind" / "train"]
    assert wanted.here
    assert (paths.data() / "mind/train/news.tsv").read_text() == NEWS["MINDsmall_train/news.tsv"]
    assert (paths.data() / "mind/train/deep/er.vec").read_text() == "0.5\n"
    size, unpacked = len(server.content), sum(map(len, NEWS.values()))
    assert ("MINDsmall_train.zip", size, size) in seen
    assert seen[-1] == ("unpacking MINDsmall_train.zip", unpacked, unpacked)
    assert len(seen) > 5
    assert datasets.verify(wanted) == 2


def test_what_is_here_is_not_fetched_again(server):
    wanted = dataset(server, packed(NEWS))
    datasets.fetch(wanted)
    assert datasets.fetch(wanted) == []
    assert len(server.asked) == 1


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server):
    wanted = dataset(server, packed(NEWS))
    server.breaks = [5000, 3000]
    datasets.fetch(wanted)
    assert server.asked == [None, "bytes=5000-", "bytes=8000-"]
    assert datasets.verify(wanted) == 2


def test_a_part_of_an_earlier_call_is_used(server):
    wanted = dataset(server, packed(NEWS))
    server.breaks = [4000, *[0] * 100]
    with pytest.raises(UserError, match="can't be fetched"):
        datasets.fetch(wanted)
    assert left() == ["mind/MINDsmall_train.zip.part"]
    server.breaks = []
    datasets.fetch(wanted)
    assert server.asked[-1] == "bytes=4000-"
    assert datasets.verify(wanted) == 2


def test_a_download_may_break_off_often_as_long_as_it_gets_on(server):
    wanted = dataset(server, packed(NEWS))
    server.breaks = [2000] * 9
    datasets.fetch(wanted)
    assert len(server.asked) == 10
    assert datasets.verify(wanted) == 2


def test_a_connection_that_is_reset_is_taken_up_again(server):
    wanted = dataset(server, packed(NEWS))
    server.breaks, server.resets = [5000, 3000], True
    datasets.fetch(wanted)
    assert server.asked == [None, "bytes=5000-", "bytes=8000-"]
    assert datasets.verify(wanted) == 2


def test_a_disk_that_fills_up_while_downloading_is_told_and_the_rest_comes_later(server):
    wanted = dataset(server, packed(NEWS))
    with largest_file(8_000), pytest.raises(UserError, match="can't be written: File too large"):
        datasets.fetch(wanted)
    assert left() == ["mind/MINDsmall_train.zip.part"]
    assert datasets.fetch(wanted) == [paths.data() / "mind" / "train"]
    assert server.asked == [None, "bytes=8000-"]


def test_a_disk_that_fills_up_while_unpacking_is_told_and_no_half_of_it_stays(server):
    digits = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(250))
    wanted = dataset(server, packed({"digits.txt": digits}, zipfile.ZIP_DEFLATED))
    assert len(server.content) < 12_000 < len(digits)
    with largest_file(12_000), pytest.raises(UserError, match="can't be written: File too large"):
        datasets.fetch(wanted)
    assert left() == ["mind/MINDsmall_train.zip"]
    assert datasets.fetch(wanted) == [paths.data() / "mind" / "train"]


def test_a_server_that_ignores_ranges_sends_all_again(server):
    wanted = dataset(server, packed(NEWS))
    server.ranges, server.breaks = False, [5000]
    datasets.fetch(wanted)
    assert server.asked == [None, "bytes=5000-"]
    assert datasets.verify(wanted) == 2


@pytest.mark.parametrize("flaw", ["digest", "longer", "shorter"])
def test_a_wrong_file_is_refused_and_nothing_stays(server, flaw):
    content = packed(NEWS)
    wanted = dataset(server, content)
    changed = bytes([content[0] ^ 1]) + content[1:]
    server.content = {"digest": changed, "longer": content + b"x", "shorter": content[:-1]}[flaw]
    with pytest.raises(UserError) as error:
        datasets.fetch(wanted)
    assert "is not what was published" in str(error.value)
    assert hashlib.sha256(content).hexdigest() in str(error.value)
    assert left() == []
    assert not (paths.data() / "mind" / "train").exists()


def test_a_wrong_part_is_thrown_away(server):
    wanted = dataset(server, packed(NEWS))
    part = paths.data() / "mind" / "MINDsmall_train.zip.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match="is not what was published"):
        datasets.fetch(wanted)
    datasets.fetch(wanted)
    assert datasets.verify(wanted) == 2


def test_a_part_of_a_longer_file_than_there_is_now_is_thrown_away(server):
    wanted = dataset(server, packed(NEWS))
    part = paths.data() / "mind" / "MINDsmall_train.zip.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 5000)
    server.refuses_ranges = True
    datasets.fetch(wanted)
    assert server.asked == ["bytes=5000-", None]
    assert datasets.verify(wanted) == 2


@pytest.mark.parametrize(("status", "times"), [(404, 1), (503, 1)])
def test_a_server_s_refusal_is_told(server, status, times):
    wanted = dataset(server, packed(NEWS))
    server.status = status
    with pytest.raises(UserError, match=f"can't be fetched: {status}"):
        datasets.fetch(wanted)
    assert len(server.asked) == times
    assert left() == []


def test_no_network_is_told_with_the_place_for_the_file(server):
    wanted = dataset(server, packed(NEWS), address="http://127.0.0.1:9/MINDsmall_train.zip")
    with pytest.raises(UserError, match=r"by hand at .*mind/MINDsmall_train\.zip"):
        datasets.fetch(wanted)


def test_offline_nothing_is_asked_and_a_file_put_by_hand_is_taken(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wanted = dataset(server, packed(NEWS))
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        datasets.fetch(wanted)
    assert list(paths.data().iterdir()) == []
    (paths.data() / "mind").mkdir()
    (paths.data() / "mind" / "MINDsmall_train.zip").write_bytes(server.content)
    datasets.fetch(wanted)
    assert server.asked == []
    assert datasets.verify(wanted) == 2


def test_a_full_disk_is_told_before_anything_is_written(server, monkeypatch):
    wanted = dataset(server, packed(NEWS))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match="10 are free"):
        datasets.fetch(wanted)
    assert left() == []


@pytest.mark.parametrize(
    "name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt", "."]
)
def test_an_archive_cannot_write_outside_its_folder(server, name):
    wanted = dataset(server, packed({"news.tsv": "fine", name: "out"}))
    with pytest.raises(UserError, match=r"leads out of its folder|a link or a device"):
        datasets.fetch(wanted)
    assert left() == ["mind/MINDsmall_train.zip"]


def test_a_link_in_an_archive_is_refused(server):
    link = zipfile.ZipInfo("news.tsv")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr(link, "/etc/passwd")
    wanted = dataset(server, buffer.getvalue())
    with pytest.raises(UserError, match=r"leads out of its folder|a link or a device"):
        datasets.fetch(wanted)


def test_a_zip_bomb_is_refused(server):
    wanted = dataset(server, packed({"news.tsv": "0" * 1_000_000}, zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="would unpack to more than"):
        datasets.fetch(wanted)
    assert left() == ["mind/MINDsmall_train.zip"]


def test_an_archive_that_is_none_is_told(server):
    wanted = dataset(server, b"not a zip file")
    with pytest.raises(UserError, match="can't be unpacked"):
        datasets.fetch(wanted)


def test_a_folder_of_somebody_else_s_is_left_alone(server):
    wanted = dataset(server, packed(NEWS))
    theirs = paths.data() / "mind" / "train" / "news.tsv"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(UserError, match="Move it away"):
        datasets.fetch(wanted)
    assert theirs.read_text() == "mine"


def test_changed_and_missing_files_are_named(server):
    wanted = dataset(server, packed(NEWS))
    with pytest.raises(UserError, match="trainlab data fetch mind"):
        datasets.verify(wanted)
    datasets.fetch(wanted)
    train = paths.data() / "mind" / "train"
    (train / "news.tsv").write_text("changed")
    (train / "deep" / "er.vec").unlink()
    with pytest.raises(UserError) as error:
        datasets.verify(wanted)
    assert "news.tsv: changed" in str(error.value)
    assert "er.vec: missing" in str(error.value)
    assert f"rm -r {train}; trainlab data fetch mind" in str(error.value)


def test_of_very_many_changed_files_a_few_are_named(server):
    wanted = dataset(server, packed({f"{number}.jpg": "x" for number in range(100)}))
    datasets.fetch(wanted)
    for path in (paths.data() / "mind" / "train").glob("*.jpg"):
        path.write_text("y")
    with pytest.raises(UserError, match=r"and 80 more\nFix it: ") as error:
        datasets.verify(wanted)
    assert str(error.value).count(": changed") == 20


def test_space_for_the_archive_and_its_content_is_asked_before_the_download(server, monkeypatch):
    wanted = dataset(server, packed(NEWS))
    room = 2 * len(server.content) - 1
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": room}))
    with pytest.raises(UserError, match=f"{room + 1:,} bytes are needed, {room:,} are free"):
        datasets.fetch(wanted)
    assert left() == []


def test_the_shipped_sample_is_as_it_was(monkeypatch):
    monkeypatch.delenv("TRAINLAB_DATA", raising=False)
    assert datasets.verify(datasets.lookup("sample")) == 3


def test_coco_goes_where_its_own_tools_look_for_it():
    coco = datasets.lookup("coco")
    assert [(each.part, each.file) for each in coco.archives] == [
        ("annotations", "annotations_trainval2017.zip"),
        ("train2017", "train2017.zip"),
    ]
    assert sum(each.size for each in coco.archives) == 19_589_769_339
    assert "CC BY 4.0" in coco.licence


def test_an_unknown_data_set_is_told_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'mind-small'"):
        datasets.lookup("mind-smal")
