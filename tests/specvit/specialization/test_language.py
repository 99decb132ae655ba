"""Where [CLS] has weights of its own: text, canonical text, places."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvit.errors import ConfigError
from specvit.specialization.components import COMPONENTS
from specvit.specialization.language import (
    Specialization,
    check_specialization,
    parse_specialization,
    places_text,
    read_terms,
    resolve_range,
)
from specvit.specialization.modes import FULL, Mode

NAMED = {
    # depth: first-third, first-half, last-half, last-third, counted by hand
    1: (range(1), range(1), range(1), range(1)),
    5: (range(1), range(2), range(3, 5), range(4, 5)),
    6: (range(2), range(3), range(3, 6), range(4, 6)),
    12: (range(4), range(6), range(6, 12), range(8, 12)),
    24: (range(8), range(12), range(12, 24), range(16, 24)),
}
NAMES = ("first-third", "first-half", "last-half", "last-third")


MODES = (FULL, Mode("gate"), Mode("gate:token"), Mode("lora", 1), Mode("lora", 12))
MEMBERS = {"norm": ("norm1", "norm2"), "qkv": ("q", "k", "v"), "mlp": ("fc1", "fc2")}
MATRICES = {"q", "k", "v", "proj", "fc1", "fc2"}


def _modes_of(name: str) -> tuple[Mode, ...]:
    return MODES if set(MEMBERS.get(name, (name,))) <= MATRICES else MODES[:3]


@st.composite
def specializations(draw: st.DrawFn) -> Specialization:
    depth = draw(st.integers(1, 24))
    modes = {}
    for name in [name for name in COMPONENTS if draw(st.booleans())]:
        blocks = {depth}
        if COMPONENTS[name].per_block:
            blocks = draw(st.sets(st.integers(0, depth - 1), min_size=1))
        modes[name] = {block: draw(st.sampled_from(_modes_of(name))) for block in sorted(blocks)}
    return Specialization(depth=depth, modes=modes)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, int, set[tuple[str, int, str]]]:
    """Draw a text, a depth, and the places that the text names there, found without the code under test."""
    depth = draw(st.sampled_from(tuple(NAMED)))
    mode_of = {name: draw(st.sampled_from(("", "(full)", "(gate)", "(gate:token)"))) for name in COMPONENTS}
    for members in MEMBERS.values():
        mode = draw(st.sampled_from(("", "(full)", "(gate)")))
        mode_of |= dict.fromkeys(members, mode)
    terms: list[str] = []
    places: set[tuple[str, int, str]] = set()
    for name in draw(st.lists(st.sampled_from((*COMPONENTS, *MEMBERS)), min_size=1, max_size=6)):
        members = MEMBERS.get(name, (name,))
        mode = mode_of[members[0]]
        kind = mode.strip("()") or "full"
        if name == "final_norm":
            terms.append(name + mode + draw(st.sampled_from(("", "@all"))))
            places.add((name, depth, kind))
            continue
        start = draw(st.integers(0, depth - 1))
        stop = draw(st.integers(start + 1, depth))
        spelt = {
            "": range(depth),
            "@all": range(depth),
            f"@{start}:{stop}": range(start, stop),
            **{f"@{n}": blocks for n, blocks in zip(NAMES, NAMED[depth], strict=True)},
        }
        suffix = draw(st.sampled_from(tuple(spelt)))
        terms.append(name + mode + suffix)
        places |= {(member, block, kind) for member in members for block in spelt[suffix]}
    return "+".join(terms), depth, places


def _places(specialization: Specialization) -> set[tuple[str, int, str]]:
    return {(component.name, block, mode.text) for component, block, mode in specialization.places()}


@given(specializations())
def test_canonical_text_of_any_specialization_parses_back_to_it(specialization: Specialization) -> None:
    assert parse_specialization(specialization.text, specialization.depth) == specialization


@given(texts())
def test_any_text_is_parsed_to_the_places_it_names(drawn: tuple[str, int, set[tuple[str, int, str]]]) -> None:
    text, depth, places = drawn
    assert _places(parse_specialization(text, depth)) == places


@given(texts())
def test_canonical_text_is_a_fixed_point(drawn: tuple[str, int, set[tuple[str, int, str]]]) -> None:
    text, depth, _ = drawn
    canonical = parse_specialization(text, depth).text
    assert parse_specialization(canonical, depth).text == canonical


@given(texts(), st.randoms(use_true_random=False))
def test_two_texts_of_the_same_places_have_one_canonical_text(
    drawn: tuple[str, int, set[tuple[str, int, str]]], rng: random.Random
) -> None:
    text, depth, places = drawn
    block_by_block = [
        f"{name}({mode})" + ("" if block == depth else f"@{block}:{block + 1}")
        for name, block, mode in sorted(places)
    ]
    rng.shuffle(block_by_block)
    same = " + ".join(block_by_block)
    assert parse_specialization(same, depth).text == parse_specialization(text, depth).text


@pytest.mark.parametrize("depth", NAMED)
def test_named_ranges_are_the_blocks_counted_by_hand(depth: int) -> None:
    assert tuple(resolve_range(name, depth) for name in NAMES) == NAMED[depth]
    assert resolve_range("all", depth) == range(depth)


@pytest.mark.parametrize(
    ("text", "depth", "canonical"),
    [
        ("", 12, "none"),
        ("none", 12, "none"),
        ("norm", 12, "norm@all"),
        ("qkv@first-third+norm", 12, "norm@all+qkv@first-third"),
        ("norm2@0:4+norm1@first-third", 12, "norm@first-third"),
        ("norm1@0:4+norm2@0:6", 12, "norm1@first-third+norm2@first-half"),
        ("mlp@0:1+mlp@3:4", 6, "mlp@0:1+mlp@3:4"),
        ("mlp@0:2+mlp@2:6", 6, "mlp@all"),
        ("qkv@first-third", 1, "qkv@all"),
        ("qkv@first-half", 2, "qkv@first-third"),
        ("final_norm@all+norm1", 6, "norm1@all+final_norm"),
        ("v+k+q", 6, "qkv@all"),
        ("q+v@first-half", 6, "q@all+v@first-half"),
        ("fc2+fc1@0:2", 6, "fc1@first-third+fc2@all"),
        ("qkv(full)", 6, "qkv@all"),
        ("qkv(lora:8)@first-third + norm (gate)", 6, "norm(gate)@all+qkv(lora:8)@first-third"),
        ("mlp(gate)@3:6+mlp@0:3", 6, "mlp@first-half+mlp(gate)@last-half"),
        ("proj(lora:2)@0:1+proj(lora:10)@1:2", 6, "proj(lora:2)@0:1+proj(lora:10)@1:2"),
        ("final_norm(gate)", 6, "final_norm(gate)"),
        ("qkv(gate:token)@0:2+norm(gate)", 6, "norm(gate)@all+qkv(gate:token)@first-third"),
        ("layerscale@last-third", 6, "layerscale@last-third"),
    ],
)
def test_canonical_text_is_the_one_written_by_hand(text: str, depth: int, canonical: str) -> None:
    assert parse_specialization(text, depth).text == canonical


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("qkv@all", "all"),
        ("qkv@0:2", "first-third"),
        ("q(lora:4)@first-third", "first-third(lora:4)"),
        ("q@3:5+q@0:1", "0:1+3:5"),
        ("q(gate)@0:1+q@last-half", "last-half+0:1(gate)"),
        ("norm@all", "none"),
    ],
)
def test_places_of_one_component_are_those_written_by_hand(text: str, places: str) -> None:
    assert places_text(parse_specialization(text, 6).modes.get("q", {}), 6) == places


def test_what_follows_the_blocks_is_owned_as_a_whole() -> None:
    assert places_text(parse_specialization("final_norm", 6).modes["final_norm"], 6) == "all"
    assert places_text(parse_specialization("final_norm(gate)", 6).modes["final_norm"], 6) == "all(gate)"


@given(specializations())
def test_places_of_components_parse_back_to_them(specialization: Specialization) -> None:
    terms = [
        f"{name}({mode.removesuffix(')') or 'full'})@{part}"
        for name, blocks in specialization.modes.items()
        for part, _, mode in (one.partition("(") for one in places_text(blocks, specialization.depth).split("+"))
    ]
    assert parse_specialization("+".join(terms) or "none", specialization.depth) == specialization


def test_default_range_and_mode_apply_to_the_terms_that_name_none() -> None:
    text = "norm1+q(full)+proj@last-half+final_norm"
    parsed = parse_specialization(text, 6, default_range="first-third", default_mode=Mode("gate"))
    assert parsed.text == "norm1(gate)@first-third+q@first-third+proj(gate)@last-half+final_norm(gate)"


@pytest.mark.parametrize(
    ("text", "layer_scale", "named"),
    [
        ("q(lora:65)", True, ("rank of q must be at most 64", "not 65")),
        ("layerscale", False, ("layerscale needs", "objective.layer_scale")),
    ],
)
def test_what_does_not_fit_the_model_is_refused(text: str, layer_scale: bool, named: tuple[str, ...]) -> None:
    fits = parse_specialization("q(lora:64)+layerscale", 6)
    check_specialization(fits, depth=6, width=64, layer_scale=True)
    with pytest.raises(ConfigError) as caught:
        check_specialization(parse_specialization(text, 6), depth=6, width=64, layer_scale=layer_scale)
    for part in named:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "layer_scale", "places", "label"),
    [
        ("paper", False, "norm@all+qkv@first-third", "paper"),
        ("paper", True, "norm@all+qkv@first-third+layerscale@all", "paper"),
        (" paper (full) ", False, "norm@all+qkv@first-third", "paper"),
        ("paper(gate)", True, "norm(gate)@all+qkv(gate)@first-third+layerscale(gate)@all", "paper(gate)"),
        ("mlp@0:1+paper", False, "norm@all+qkv@first-third+mlp@0:1", "norm@all+qkv@first-third+mlp@0:1"),
        ("norm@all+qkv@first-third", True, "norm@all+qkv@first-third", "norm@all+qkv@first-third"),
    ],
)
def test_the_papers_arm_is_its_places_in_the_model_and_keeps_its_name(
    text: str, layer_scale: bool, places: str, label: str
) -> None:
    parsed = parse_specialization(text, 12, layer_scale=layer_scale, default_range="0:1")
    assert (parsed.text, parsed.label) == (places, label)
    assert parsed == parse_specialization(places, 12)
    check_specialization(parsed, depth=12, width=64, layer_scale=layer_scale)


def test_the_papers_arm_takes_the_default_mode_into_its_name() -> None:
    assert parse_specialization("paper", 12, default_mode=Mode("gate")).label == "paper(gate)"


def test_only_the_baseline_is_false() -> None:
    assert not parse_specialization("none", 6)
    assert parse_specialization("final_norm", 6)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("norms@all", ("'norms'", "did you mean 'norm'?")),
        ("qvk", ("'qvk'", "did you mean 'qkv'?")),
        ("attention", ("'attention'", "known: none, norm, qkv, mlp, norm1, norm2, q, k, v, proj")),
        ("qkv@first-thrid", ("'first-thrid'", "did you mean 'first-third'?")),
        ("qkv@3:13", ("'3:13'", "<= 12")),
        ("qkv@4:4", ("'4:4'", "i < j")),
        ("qkv@-1:4", ("'-1:4'", "i:j")),
        ("norm+", ("'norm+'", "''")),
        ("norm@", ("'norm@'", "must follow '@'")),
        ("none+norm", ("'none+norm'", "stands alone")),
        ("final_norm@first-third", ("final_norm", "takes no range")),
        ("norm(lora:4)", ("norm1", "no matrix", "full or gate", "lora:4")),
        ("qkv(lora:0)", ("'lora:0'", "at least 1")),
        ("qkv(lora)", ("'lora'", "lora:R")),
        ("qkv(half)@all", ("'half'", "full, gate")),
        ("qkv(gate", ("'qkv(gate'", "component(mode)@range")),
        ("q+qkv(gate)", ("q of block 0", "two modes", "full and gate")),
        ("papers", ("'papers'", "did you mean 'paper'?")),
        ("paper@first-half", ("'paper@first-half'", "paper has block ranges of its own and takes none")),
        ("paper(lora:8)", ("'paper(lora:8)'", "norm1", "no matrix", "lora:8")),
        ("paper+q(gate)", ("q of block 0", "full and gate")),
    ],
)
def test_a_wrong_text_is_refused_with_its_value_and_the_nearest_name(text: str, named: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_specialization(text, 12)
    for part in named:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("norm@all+qkv(lora:8)@first-third", ["norm@all", "qkv(lora:8)@first-third"]),
        (" mlp + final_norm", ["mlp", "final_norm"]),
        ("paper", ["norm@all", "qkv@first-third"]),
        ("paper(gate)", ["norm(gate)@all", "qkv(gate)@first-third"]),
    ],
)
def test_terms_of_a_text_are_read_without_a_depth(text: str, terms: list[str]) -> None:
    assert [term.text for term in read_terms(text)] == terms


def test_a_named_arm_is_read_with_the_layer_scales_that_the_model_has() -> None:
    assert [term.text for term in read_terms("paper", layer_scale=True)] == [
        "norm@all", "layerscale@all", "qkv@first-third",
    ]


@pytest.mark.parametrize("text", ["none", "jumbo", "norm@all+", "norm(wide)@all", "norm)@all"])
def test_terms_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_terms(text)
