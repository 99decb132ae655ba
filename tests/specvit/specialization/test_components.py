"""The table of components: what a row may be, and what keeps it out of the table."""

from __future__ import annotations

import re

import pytest

from specvit.errors import ConfigError, PartError
from specvit.specialization import components, language
from specvit.specialization.components import COMPONENTS, Component, Site, component_table
from specvit.specialization.language import check_specialization, parse_specialization

OURS = tuple(COMPONENTS.values())


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (Component("kv", (Site("attn.qkv", inputs=1, outputs=2, first=1),)), "'attn.qkv' that component 'k' owns"),
        (Component("k", (Site("attn.proj", inputs=1),)), "the name is taken"),
        (Component("scale1", (Site("ls1"),)), "outputs of 'ls1' that component 'layerscale'"),
        (Component("gate", (Site("mlp.gate", inputs=1),)), "module must be one of a block (norm1, .*), not 'mlp.gate'"),
        (Component("norm3", (Site("norm", vectors=2),)), "module must be one of a block"),
        (Component("head", (Site("head", inputs=1),), per_block=False), "outside its blocks (norm), not 'head'"),
    ],
    ids=lambda value: value.name if isinstance(value, Component) else "",
)
def test_a_row_beside_ours_that_cannot_be_counted_or_built_is_refused(row: Component, fault: str) -> None:
    pattern = re.escape(fault).replace(re.escape(".*"), ".*")
    with pytest.raises(PartError, match=rf"component '{row.name}' of specvit/.*components\.py: .*{pattern}"):
        component_table((*OURS, row))


@pytest.mark.parametrize(
    ("site", "fault"),
    [
        (Site("mlp.fc2", inputs=1), r"has inputs=4 and vectors=1, not inputs=1"),
        (Site("norm1", vectors=1), r"has inputs=0 and vectors=2, not inputs=0 and vectors=1"),
        (Site("attn.qkv", inputs=1, outputs=2, first=2), r"outputs from 0 to 3 of 'attn.qkv', .* not 2 to 4"),
    ],
)
def test_a_site_that_is_not_as_large_as_it_says_is_refused(site: Site, fault: str) -> None:
    with pytest.raises(PartError, match=fault):
        component_table((Component("mine", (site,)),))


def test_any_component_on_a_layer_scale_needs_a_model_with_layer_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (*(row for row in OURS if row.name != "layerscale"), Component("ls_mlp", (Site("ls2"),)))
    table = component_table(rows)
    for module in (components, language):
        monkeypatch.setattr(module, "COMPONENTS", table)
    places = parse_specialization("ls_mlp@first-third", 6)
    check_specialization(places, depth=6, width=64, layer_scale=True)
    with pytest.raises(ConfigError, match="ls_mlp needs a model with layer scales"):
        check_specialization(places, depth=6, width=64, layer_scale=False)


def test_names_for_several_components_may_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    aliases = {"qk": ("q", "k"), "kv": ("k", "v"), "qkv": ("q", "k", "v")}
    monkeypatch.setattr(language, "ALIASES", aliases)
    for text, canonical in (("q+k+v", "qk@all+v@all"), ("v+k", "kv@all"), ("kv+proj", "kv@all+proj@all")):
        places = parse_specialization(text, 6)
        assert places.text == canonical
        assert parse_specialization(places.text, 6) == places
