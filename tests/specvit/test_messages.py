from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvit.messages import escape_control_chars, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("norm@all seed 1", "norm@all seed 1"),
        ("[red]Größe ↑ 😀[/red]", "[red]Größe ↑ 😀[/red]"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("back\b\rspace\x07", r"back\x08\x0dspace\x07"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", r"\udcff"),
        ("two\n\tlines", "two\n\tlines"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out_and_the_rest_stays(text: str, shown: str) -> None:
    assert escape_control_chars(text) == shown


@given(st.text())
def test_visible_text_holds_no_character_without_a_shape_but_line_ends_and_tabs(text: str) -> None:
    hidden = {c for c in escape_control_chars(text) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden <= {"\n", "\t"}


@given(st.text())
def test_text_that_is_visible_already_is_left_alone(text: str) -> None:
    assert escape_control_chars(escape_control_chars(text)) == escape_control_chars(text)


def test_one_line_joins_lines_and_shows_what_is_hidden() -> None:
    assert one_line("  a\n\n b\t\x1b[2J ") == r"a b \x1b[2J"
