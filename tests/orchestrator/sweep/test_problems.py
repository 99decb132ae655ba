"""The text of problems: one line each, whatever the user wrote."""

from __future__ import annotations

import pytest

from orchestrator.sweep.problems import FieldPath, Problem, SourceMap, SweepFileError, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red] text, é and 画", "plain [red] text, é and 画"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x85\u2028\u202e\ud800", r"\x85\u2028\u202e\ud800"),
        ("back\\slash 'quote'", "back\\slash 'quote'"),
    ],
)
def test_one_line_shows_what_commands_a_terminal_as_its_code(text: str, shown: str) -> None:
    assert shortened(text) == shown


def test_one_line_of_very_long_text_keeps_its_beginning_and_its_end() -> None:
    shown = shortened(f"x.yaml:1: {'a' * 100_000}: must be short")
    assert shown.startswith("x.yaml:1: aaa")
    assert shown.endswith("aaa: must be short")
    assert len(shown) < 1100


def test_error_of_places_has_a_line_a_problem() -> None:
    places = SourceMap("a\nb.yaml", {("x\ny",): 3}, {("z",): "z=1\n2"})
    error = places.error([Problem(("z",), "wrong\r"), Problem(("x\ny",), "worse")])
    assert isinstance(error, SweepFileError)
    assert str(error).split("\n") == [r"--set z=1\n2: z: wrong\r", r"a\nb.yaml:3: x\ny: worse"]


def test_a_long_override_is_cut_and_the_rule_behind_it_is_not() -> None:
    path: FieldPath = ("0",)
    text = f"0={'x' * 3000}"
    place = SourceMap(name="s.yaml", lines={}, overrides={path: text})
    known = ", ".join(f"field_{number}" for number in range(60))
    message = str(place.error([Problem(path, f"unknown field; known: {known}")]))
    assert message.startswith(f"--set {text[:220]} ... {text[-80:]}: 0: unknown field; known: field_0, ")
    assert str(SourceMap("s.yaml", {}, {path: "0=x"}).error([Problem(path, "no")])) == "--set 0=x: 0: no"
