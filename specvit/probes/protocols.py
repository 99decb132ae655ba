"""Probes that can be fitted by several protocols, each with fields of its own."""

from __future__ import annotations

from collections.abc import Mapping


def resolve_protocol(probe: object, protocol: str, defaults: Mapping[str, Mapping[str, object]]) -> None:
    """Set the fields of a probe's protocol to their defaults where none were given; for a probe's own validator.

    Args:
        probe: Settings that are being made. A field of a protocol that was not given is None; it takes the default
            if it belongs to ``protocol``, and stays None if it does not.
        protocol: The protocol.
        defaults: The fields of every protocol, with the values that they have where none are given.

    Raises:
        ValueError: If a field was given that does not belong to the protocol.
    """
    own = defaults[protocol]
    for name in dict.fromkeys(name for fields in defaults.values() for name in fields):
        if getattr(probe, name) is None:
            object.__setattr__(probe, name, own.get(name))
        elif name not in own:
            owners = " or ".join(other for other, fields in defaults.items() if name in fields)
            raise ValueError(f"{name} must not be given with protocol {protocol!r}; it is a setting of {owners}")
