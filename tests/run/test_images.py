from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.summary.writer.event_file_writer import EventFileWriter

import trainlab
from trainlab.run import events, images


def drawn(kind="PNG", side=2):
    """Return a picture's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    with trainlab.Run("news", logs=tmp_path, monitor=False) as run:
        for step in range(3):
            run.log({"loss": 1.0}, step)
            run.log_image("views/a", np.full((4, 4), step / 4), step)
        run.log_image("views/b", np.zeros((2, 2)), 1)
    return run.folder


def test_the_newest_picture_of_each_tag_is_found_and_files_behind_them(folder):
    (folder / "z.png").write_bytes(drawn())
    (folder / "figures").mkdir()
    (folder / "figures" / "curve.svg").write_text("<svg/>")
    found = images.found(folder)
    assert [(each.name, each.step) for each in found] == [
        ("views/a", 2),
        ("views/b", 1),
        ("z.png", None),
        ("figures/curve.svg", None),
    ]
    data, kind = images.content(found[0])
    assert kind == "image/png"
    assert np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0] == 127
    assert images.content(found[3]) == (b"<svg/>", "image/svg+xml")


def test_pictures_of_tensorflow_2_are_found(tmp_path):
    writer = EventFileWriter(str(tmp_path))
    tensor = TensorProto(dtype=7, string_val=[b"2", b"2", drawn("JPEG"), drawn()])
    value = Summary.Value(tag="theirs", tensor=tensor)
    writer.add_event(Event(wall_time=1e9, step=7, summary=Summary(value=[value])))
    writer.close()
    (found,) = images.found(tmp_path)
    assert (found.name, found.step) == ("theirs", 7)
    assert images.content(found)[1] == "image/jpeg"


def test_what_only_has_the_name_of_a_picture_is_none(folder):
    (folder / "link.png").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.png")
    (folder / "elsewhere").symlink_to("/etc")
    (folder / "text.png").write_text("<script>")
    found = {each.name: each for each in images.found(folder)}
    assert list(found) == ["views/a", "views/b", "text.png"]
    with pytest.raises(OSError, match="no picture"):
        images.content(found["text.png"])
    (folder / "text.png").unlink()
    (folder / "text.png").symlink_to("/etc/passwd")  # meanwhile
    with pytest.raises(OSError, match="a link"):
        images.content(found["text.png"])


def test_a_damaged_file_hides_none_of_the_pictures_before_the_damage(folder):
    (path,) = events.files(folder)
    content = path.read_bytes()
    for end in range(0, len(content), 13):
        path.write_bytes(content[:end] + b"\xff" * 40 + content[end + 40 :])
        for each in images.found(folder):
            try:
                images.content(each)
            except OSError as error:
                assert "no picture" in str(error)
    path.write_bytes(content + b"garbage that is no event")
    assert len(images.found(folder)) == 2


def test_a_picture_that_its_file_no_longer_holds_is_an_error(folder):
    found = images.found(folder)
    (path,) = events.files(folder)
    path.write_bytes(b"")
    with pytest.raises(OSError, match="no picture"):
        images.content(found[0])


def test_of_very_many_pictures_the_first_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST", 3)
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(drawn())
    assert [each.name for each in images.found(tmp_path)] == ["0.png", "1.png", "2.png"]
