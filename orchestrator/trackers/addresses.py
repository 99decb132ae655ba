"""The addresses of webhooks in a sweep file; see ``orchestrator.secrets``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr

from orchestrator.secrets import PLACEHOLDER, is_address
from specvit.errors import ConfigError

_RULE = f"must be an http:// or https:// address, or {PLACEHOLDER}, which is read from the environment"


def _read(value: object) -> object:
    """Return a list for one address; what is refused is not told, since it may be nearly an address."""
    given = [value] if isinstance(value, str | SecretStr) else value
    if not isinstance(given, list | tuple):
        raise ConfigError(f"{_RULE}; or a list of these")
    for address in given:
        text = address.get_secret_value() if isinstance(address, SecretStr) else address
        if text != PLACEHOLDER and not is_address(text):
            raise ConfigError(_RULE)
    return tuple(given)


Addresses = Annotated[
    tuple[SecretStr, ...],
    BeforeValidator(_read, json_schema_input_type=str | Annotated[list[str], Field(min_length=1)]),
]
"""An address, or several."""
