from hypothesis import given
from hypothesis import strategies as st

from aem_swe.eval.visible import visible, visible_line


def test_terminal_escapes_become_symbols() -> None:
    assert visible("\x1b[2J\x1b]0;owned\x07") == "␛[2J␛]0;owned␇"
    assert visible("a\x00b\x7f\r\n") == "a␀b␡␍\n"
    assert visible("\x9b31m") == "<U+009B>31m"


def test_text_that_hides_or_reorders_itself_is_shown() -> None:
    assert visible("user\u202etxt.exe\u200b") == "user<U+202E>txt.exe<U+200B>"


def test_a_lone_surrogate_can_be_written_as_utf8() -> None:
    assert visible("\ud800").encode() == b"<U+D800>"


def test_ordinary_text_of_any_language_is_untouched() -> None:
    text = "naïve ≤ 汉字 ελ\n\tindented"
    assert visible(text) == text


def test_clipped_text_says_how_much_is_missing() -> None:
    assert visible("x" * 1500, 300) == "x" * 300 + "\n[clipped here: 1,200 more characters]"
    assert visible("abc", 3) == "abc"


@given(st.text())
def test_a_line_for_the_terminal_is_one_printable_line(text: str) -> None:
    line = visible_line(text)
    line.encode()
    assert len(line.splitlines()) <= 1
    assert visible_line(line, 10**6) == line
