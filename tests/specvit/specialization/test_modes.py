"""Modes as text."""

from __future__ import annotations

import pytest

from specvit.errors import ConfigError
from specvit.specialization.modes import FULL, Mode, parse_mode


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("full", FULL),
        ("gate", Mode("gate")),
        ("gate:token ", Mode("gate:token")),
        (" lora:1 ", Mode("lora", 1)),
        ("lora:384", Mode("lora", 384)),
    ],
)
def test_modes_are_parsed_and_written_back(text: str, mode: Mode) -> None:
    assert parse_mode(text) == mode
    assert parse_mode(mode.text) == mode


@pytest.mark.parametrize(
    "text",
    ["", "half", "lora", "lora:", "lora:0", "lora:-1", "lora:1.5", "lora:٣", "gate:2", "gate:", "full:token"],
)
def test_anything_else_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_mode(text)
    assert repr(text) in str(caught.value)
