"""The parts of a ViT that [CLS] can have for itself: one row each.

A row says where timm keeps the weights and how large they are; parsing, layers, parameter counts, optimizer
groups and sweep files follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


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


COMPONENTS: Mapping[str, Component] = MappingProxyType(
    {
        component.name: component
        for component in (
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
    }
)
"""Every component, in the order of canonical text. A new one is a new row (and its test)."""

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"norm": ("norm1", "norm2"), "qkv": ("q", "k", "v"), "mlp": ("fc1", "fc2")}
)
"""Names for several components at once, in the order of canonical text."""
