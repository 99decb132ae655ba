"""Which shared weight an own one stands beside."""

from __future__ import annotations

from specvit.models.routed_layers import OWN


def original_name(name: str) -> str:
    """Return the name of the shared parameter that an own one stands beside.

    The matrices of a low rank stand beside the weight, and so do gates.
    """
    module, _, rest = name.partition(f".{OWN}.")
    component, _, kind = rest.rpartition(".")
    if kind not in ("weight", "bias", "gamma"):
        kind = "gamma" if component == "layerscale" else "weight"
    return f"{module}.{kind}"
