"""`manifests.text`: nothing but printable text leaves for a terminal."""

from __future__ import annotations

import unicodedata

import pytest

from manifests.text import all_lines, one_line, say

NASTY = {
    "escape": "a\x1b[31mred",
    "bell": "a\x07",
    "line ends": "a\r\nb\x85c\u2028d",
    "C1": "a\x9b31m",
    "right to left": "a\u202egpj.mp4",
    "not UTF-8": "a\udcff",
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_what_steers_a_terminal_is_written_as_its_escape(text: str) -> None:
    shown = one_line(text)
    assert {unicodedata.category(c)[0] for c in shown} <= set("LMNPSZ")
    assert shown.encode()  # a lone surrogate cannot be encoded
    assert shown.encode().decode("unicode_escape") == text


def test_other_text_stays_as_it_is(capsys) -> None:
    text = "ünï – 日本 🎬 'it''s' 100% \\x"
    assert one_line(text) == text
    say("one", "two\nthree")
    assert capsys.readouterr().out == "one\ntwo\\nthree\n"
    assert all_lines("one\ntwo\x1b") == "one\ntwo\\x1b"
