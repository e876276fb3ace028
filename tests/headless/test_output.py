from __future__ import annotations

import os
import time

from trainlab.headless import output


def written(folder, text, name="output.log"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return output.tail(folder / name)


def test_colours_titles_and_links_are_gone_and_bars_show_their_last_state(tmp_path):
    text = "\x1b]0;title\x07\x1b[31mred\x1b[0m\n 10%\r 90%\r100%\r\n\x1b[2K\x1b[1Aup\x08\x00"
    assert written(tmp_path, text) == "red\n100%\nup"


def test_what_cannot_be_text_and_what_turns_the_writing_is_shown_as_such(tmp_path):
    assert written(tmp_path, b"caf\xe9 \xff") == "caf\ufffd \ufffd"
    assert "\u202e" not in written(tmp_path, "a\u202eb")


def test_of_a_long_output_whole_lines_of_its_end_are_shown(tmp_path):
    lines = [f"line {number}" for number in range(50_000)]
    found = written(tmp_path, "\n".join(lines)).split("\n")
    assert found[-1] == lines[-1]
    assert found[0] in lines
    assert 1000 < len(found) < 10_000


def test_a_log_of_two_gigabytes_costs_nothing(tmp_path):
    with (tmp_path / "output.log").open("wb") as file:
        file.truncate(2 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    began = time.process_time()
    assert output.tail(tmp_path / "output.log").endswith("the end\n")
    assert time.process_time() - began < 1


def test_secrets_are_hidden_also_where_the_end_begins_within_one(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "tok-0123456789abcdef")
    assert written(tmp_path, "it is tok-0123456789abcdef\n") == "it is ***\n"
    for cut in range(0, 24, 3):
        rest = "x" * (output.TAIL + output.MARGIN - cut)
        found = written(tmp_path, f"{'y' * 100}tok-0123456789abcdef{rest}")
        assert "9abcdef" not in found


def test_each_host_s_output_is_there_and_links_and_pipes_are_not(tmp_path):
    written(tmp_path, "one\n")
    written(tmp_path, "two\n", "output-b.log")
    (tmp_path / "output-c.log").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "output-d.log")
    assert output.tails(tmp_path) == [("output-b.log", "two\n"), ("output.log", "one\n")]
    assert output.tails(tmp_path / "none") == []
