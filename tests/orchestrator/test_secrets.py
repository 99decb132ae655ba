"""Addresses of webhooks: which there are, and where they are not to be seen."""

from __future__ import annotations

import pytest

from orchestrator.secrets import (
    PLACEHOLDER,
    VARIABLE,
    hide_argument,
    is_address,
    resolve_addresses,
    secrets_of,
    without_password,
)
from specvit.errors import ConfigError


@pytest.mark.parametrize("text", ["https://hooks.slack.com/services/T/B/x", "http://10.0.0.1:8080", "https://[::1]/"])
def test_an_address_is_of_http(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    ["", "x", "file:///etc/passwd", "ftp://host/x", "javascript:alert(1)", "https://", "https:///x", "http://h:x/",
     "http://h:99999/", "http://[::1", "https://a b", "https://a\n", 5, None, ["https://a"]],
)
def test_nothing_else_is(text: object) -> None:
    assert not is_address(text)


def test_the_environment_counts_where_the_file_gives_nothing_or_names_it() -> None:
    environment = {VARIABLE: " http://a\n http://b "}
    assert resolve_addresses([], environment) == ("http://a", "http://b")
    assert resolve_addresses([], {}) == ()
    assert resolve_addresses([PLACEHOLDER], {}) == ()
    assert resolve_addresses(["http://c"], environment) == ("http://c",)
    assert resolve_addresses(["http://b", PLACEHOLDER], environment) == ("http://b", "http://a")


def test_what_is_no_address_in_the_environment_is_refused_without_being_told() -> None:
    with pytest.raises(ConfigError) as error:
        resolve_addresses([], {VARIABLE: "hooks.slack.com/SECRET"})
    assert str(error.value) == "SPECSWEEP_NOTIFY: must hold http:// or https:// addresses, white space between them"
    assert resolve_addresses(["http://c"], {VARIABLE: "nonsense"}) == ("http://c",)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("notify=https://a/SECRET", f"notify={PLACEHOLDER}"),
        ("--set=notify=[https://a,\n https://b]", f"--set=notify={PLACEHOLDER}"),
        (" notify =x=y", f" notify ={PLACEHOLDER}"),
        ("notify.0=https://a", f"notify.0={PLACEHOLDER}"),
        ("objective.lr=1", "objective.lr=1"),
        ("question=notify=me", "question=notify=me"),
        ("notify", "notify"),
    ],
)
def test_an_argument_that_sets_them_is_hidden(text: str, hidden: str) -> None:
    assert hide_argument(text) == hidden


def test_what_is_to_be_hidden_is_all_but_the_name_of_the_variable() -> None:
    assert secrets_of(["https://a", PLACEHOLDER, "https://a/b", 5]) == ["https://a/b", "https://a"]
    assert secrets_of(PLACEHOLDER) == secrets_of(None) == []


def test_passwords_in_addresses_are_cut_out() -> None:
    assert without_password("no https://me:pass@host/x or postgresql://u@h") == "no https://host/x or postgresql://h"
