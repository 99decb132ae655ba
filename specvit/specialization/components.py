"""The parts of a ViT that [CLS] can have for itself: one row each.

A row says where timm keeps the weights and how large they are; parsing, layers, parameter counts, optimizer
groups and sweep files follow from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from specvit.errors import PartError


@dataclass(frozen=True)
class Site:
    """Where weights are in a model, and how large, in units of the model's width.

    Attributes:
        module: Attribute path of the module, relative to a block, or to the model.
        inputs: Inputs of a linear layer; 0 = no matrix, only vectors.
        outputs: Outputs that the component owns.
        vectors: Vectors over the outputs: the bias of a linear layer, scale and shift of a norm.
        first: The first of the outputs, where the module has others too.
    """

    module: str
    inputs: int = 0
    outputs: int = 1
    vectors: int = 1
    first: int = 0


@dataclass(frozen=True)
class Component:
    """A part that can be specialized.

    Attributes:
        name: What sweep files call it.
        sites: Where its weights are.
        per_block: Whether every block has one, so that it takes a block range.
    """

    name: str
    sites: tuple[Site, ...]
    per_block: bool = True

    @property
    def has_matrix(self) -> bool:
        """Return whether it is made of linear layers."""
        return all(site.inputs for site in self.sites)

    @property
    def needs_layer_scale(self) -> bool:
        """Return whether it exists only in models with layer scales."""
        return any(site.module in _LAYER_SCALES for site in self.sites)


_LAYER_SCALES = ("ls1", "ls2")
_IN_BLOCK = (
    Site("norm1", vectors=2),
    Site("norm2", vectors=2),
    Site("attn.qkv", inputs=1, outputs=3),
    Site("attn.proj", inputs=1),
    *map(Site, _LAYER_SCALES),
    Site("mlp.fc1", inputs=1, outputs=4),
    Site("mlp.fc2", inputs=4),
)
_IN_MODEL = (Site("norm", vectors=2),)


def component_table(components: Iterable[Component]) -> Mapping[str, Component]:
    """Return components by name, once it is certain that every weight belongs to one of them at most.

    Raises:
        PartError: If two have one name or own the same outputs, or a site is none of timm's ViT; the text names the
            component, the module, the rule and the value.
    """
    table: dict[str, Component] = {}
    for component in components:
        here = f"component {component.name!r} of specvit/specialization/components.py"
        if component.name in table:
            raise PartError(f"{here}: the name is taken by another component")
        for site in component.sites:
            _check_site(site, component, here)
            for other in table.values():
                if any(_overlap(site, taken) for taken in other.sites):
                    raise PartError(
                        f"{here}: must not own outputs of {site.module!r} that component {other.name!r} owns, whose "
                        "parameters would be counted twice; a name for several components is a line of ALIASES"
                    )
        table[component.name] = component
    return MappingProxyType(table)


def _check_site(site: Site, component: Component, here: str) -> None:
    known = {whole.module: whole for whole in (_IN_BLOCK if component.per_block else _IN_MODEL)}
    whole = known.get(site.module)
    if whole is None:
        where = "a block" if component.per_block else "the model outside its blocks"
        raise PartError(f"{here}: module must be one of {where} ({', '.join(known)}), not {site.module!r}")
    if (site.inputs, site.vectors) != (whole.inputs, whole.vectors):
        raise PartError(
            f"{here}: {site.module!r} has inputs={whole.inputs} and vectors={whole.vectors}, "
            f"not inputs={site.inputs} and vectors={site.vectors}"
        )
    if site.first < 0 or site.outputs < 1 or site.first + site.outputs > whole.outputs:
        raise PartError(
            f"{here}: must own outputs from 0 to {whole.outputs} of {site.module!r}, in units of the width, "
            f"not {site.first} to {site.first + site.outputs}"
        )


def _overlap(one: Site, other: Site) -> bool:
    return (
        one.module == other.module
        and one.first < other.first + other.outputs
        and other.first < one.first + one.outputs
    )


COMPONENTS: Mapping[str, Component] = component_table(
    (
        Component("norm1", (Site("norm1", vectors=2),)),
        Component("norm2", (Site("norm2", vectors=2),)),
        Component("q", (Site("attn.qkv", inputs=1, first=0),)),
        Component("k", (Site("attn.qkv", inputs=1, first=1),)),
        Component("v", (Site("attn.qkv", inputs=1, first=2),)),
        Component("proj", (Site("attn.proj", inputs=1),)),
        Component("layerscale", (Site("ls1"), Site("ls2"))),
        Component("fc1", (Site("mlp.fc1", inputs=1, outputs=4),)),
        Component("fc2", (Site("mlp.fc2", inputs=4),)),
        Component("final_norm", (Site("norm", vectors=2),), per_block=False),
    )
)
"""Every component, in the order of canonical text. A new one is a new row (and its test)."""

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"norm": ("norm1", "norm2"), "qkv": ("q", "k", "v"), "mlp": ("fc1", "fc2")}
)
"""Names for several components at once, in the order of canonical text."""

NAMED_ARMS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {"paper": (("norm", "all"), ("layerscale", "all"), ("qkv", "first-third"))}
)
"""Names for whole arms: components or aliases, each with its block range. Layer scales are left out in models that have
none. ``paper`` is the arm that Marouani et al. 2026 (arXiv 2602.08626) report as their best."""
