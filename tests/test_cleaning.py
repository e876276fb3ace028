from __future__ import annotations

import pytest

from trainlab import cleaning

EVIL = "\x1b]0;PWNED\x07\x1b[2J\x1b[31mred\x1b[0m\x1b]8;;http://evil.example\x07click\x1b]8;;\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("val/loss", "val/loss"),
        ("a\x1b[2Jb\x07", "a?[2Jb?"),
        ("\x9b31mred", "?31mred"),
        ("\u202egnp.exe", "?gnp.exe"),
        ("two\nlines\r", "two?lines?"),
        ("\udcff \u4e2d\u6587 \u00e9", "? \u4e2d\u6587 \u00e9"),
    ],
)
def test_what_steers_a_terminal_becomes_a_question_mark(text, shown):
    assert cleaning.printable(text) == shown


def test_a_message_keeps_its_lines():
    assert cleaning.lines("one\ttab\ntwo\x1b[31m\n") == "one tab\ntwo?[31m\n"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a|b", r"a\|b"),
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("<script>`*", r"\<script\>\`\*"),
        (r"a\|b", r"a\\\|b"),
        ("val_loss", "val_loss"),
        ("a\nb", "a?b"),
    ],
)
def test_a_cell_of_markdown_holds_no_markup(text, cell):
    assert cleaning.markdown(text) == cell


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://evil")', '\'=HYPERLINK("http://evil")'),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "' =1"),
        ("\r=1", "'?=1"),
        ("  =1", "'  =1"),
        ("\uff1d1", "'\uff1d1"),
        ("-1.5e-3", "-1.5e-3"),
        ("-inf", "-inf"),
        ("+7", "+7"),
        ("-", "'-"),
        ("", ""),
        ("words, of two\nlines\x1b[2J", "words, of two\nlines?[2J"),
    ],
)
def test_a_sheet_computes_nothing_and_numbers_stay_numbers(text, cell):
    assert cleaning.sheet(text) == cell


KEPT = "\x1b[1;38;5;12mblue\x1b[0m 10%\r 20%\x08\x1b[2K\x1b[1A\x1b[J\x1b[?25l|bar\u4e2d|\x1b[?25h\tend\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (KEPT, KEPT),
        (EVIL, "\x1b[31mred\x1b[0mclick"),
        ("a\x1b]52;c;ZXZpbA==\x1b\\b", "ab"),
        ("a\x1bP+q544e\x1b\\b\x1b_x\x1b\\c\x1bcd\x1b(0e", "abcde"),
        ("a\x1b[20;5Hb\x1b[6nc\x1b[?1049hd\x1b[2Je", "abcde"),
        ("a\x07\x00\x9b31m\x9dtitle\x9cb\u202ec\x7f", "a31mtitlebc"),
    ],
)
def test_a_program_keeps_its_colours_and_bars_and_steers_nothing_else(text, shown, size):
    output = cleaning.Output()
    assert "".join(output.feed(text[at : at + size]) for at in range(0, len(text), size)) == shown


def test_a_sequence_without_an_end_holds_nothing_back_for_good():
    output = cleaning.Output()
    text = "\x1b]0;" + "x" * 10_000
    assert output.feed(text) + output.feed("end") == text[2:] + "end"


def test_no_cell_breaks_out_of_a_markdown_table():
    table = cleaning.markdown_table(("name", "size"), [("a|b", 1), ("*c*\nd", 2.5)], right=("size",))
    assert table.splitlines() == [
        "| name | size |",
        "| --- | --: |",
        "| a\\|b | 1 |",
        "| \\*c\\*?d | 2.5 |",
    ]


def test_texts_that_differ_in_case_and_white_space_have_one_key():
    assert cleaning.text_key("  Straße \n nach\tRom ") == cleaning.text_key("STRASSE nach rom")
    assert cleaning.text_key("a b") != cleaning.text_key("ab")
