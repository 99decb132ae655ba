"""What is not to be seen: addresses of webhooks, which may hold a key, and passwords in addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from specvit.errors import ConfigError

VARIABLE = "SPECSWEEP_NOTIFY"
"""Environment variable that holds addresses of webhooks, white space between them."""

PLACEHOLDER = f"${VARIABLE}"
"""What stands for them in a sweep file, and for those of a file in every copy of it."""

_ARGUMENT = re.compile(r"((?:--set=)?\s*notify(?:\.[^=]*)?\s*=).*", re.DOTALL)
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*@")


def is_address(text: object) -> bool:
    """Return whether something is an ``http://`` or ``https://`` address."""
    if not isinstance(text, str) or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # as of a port that is no number
        return False


def resolve_addresses(given: Iterable[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the addresses that get a message: those of a sweep file, and those of the environment where it says so.

    Args:
        given: Those of the file; none = those of the environment, if there are some.
        environment: The environment's variables.

    Raises:
        ConfigError: If the environment holds something else than addresses.
    """
    texts = tuple(given) or (PLACEHOLDER,)
    of_environment = environment.get(VARIABLE, "").split()
    if PLACEHOLDER in texts and not all(map(is_address, of_environment)):
        raise ConfigError(f"{VARIABLE}: must hold http:// or https:// addresses, white space between them")
    found = (each for text in texts for each in (of_environment if text == PLACEHOLDER else [text]))
    return tuple(dict.fromkeys(found))


def secrets_of(notify: object) -> list[str]:
    """Return the texts of the field ``notify``, as it was read, that are to be hidden; the longest first."""
    given = notify if isinstance(notify, list) else [notify]
    return sorted({text for text in given if isinstance(text, str) and text != PLACEHOLDER}, key=len, reverse=True)


def hide_argument(text: str, *, by: str = PLACEHOLDER) -> str:
    """Return an argument of a command line; if it sets ``notify``, without what it sets."""
    found = _ARGUMENT.fullmatch(text)
    return text if found is None else found[1] + by


def without_password(text: str) -> str:
    """Return text without the user and the password of each address in it."""
    return _PASSWORD.sub("", text)
