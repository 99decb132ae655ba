"""Where [CLS] has weights of its own: text, canonical text, places."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvit.errors import ConfigError
from specvit.specialization import COMPONENTS, Specialization, parse_specialization, resolve_range

NAMED = {
    # depth: first-third, first-half, last-half, last-third, counted by hand
    1: (range(1), range(1), range(1), range(1)),
    5: (range(1), range(2), range(3, 5), range(4, 5)),
    6: (range(2), range(3), range(3, 6), range(4, 6)),
    12: (range(4), range(6), range(6, 12), range(8, 12)),
    24: (range(8), range(12), range(12, 24), range(16, 24)),
}
NAMES = ("first-third", "first-half", "last-half", "last-third")


@st.composite
def specializations(draw: st.DrawFn) -> Specialization:
    depth = draw(st.integers(1, 24))
    names = draw(st.sets(st.sampled_from(tuple(COMPONENTS))))
    some_blocks = st.sets(st.integers(0, depth - 1), min_size=1).map(lambda blocks: tuple(sorted(blocks)))
    blocks = {
        name: draw(some_blocks) if COMPONENTS[name].per_block else () for name in COMPONENTS if name in names
    }
    return Specialization(depth=depth, blocks=blocks)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, int, set[tuple[str, int]]]:
    """Draw a text, a depth, and the places that the text names there, found without the code under test."""
    depth = draw(st.sampled_from(tuple(NAMED)))
    terms: list[str] = []
    places: set[tuple[str, int]] = set()
    for name in draw(st.lists(st.sampled_from((*COMPONENTS, "norm")), min_size=1, max_size=6)):
        if name == "final_norm":
            terms.append(draw(st.sampled_from(("final_norm", "final_norm@all"))))
            places.add((name, -1))
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
        terms.append(name + suffix)
        members = ("norm1", "norm2") if name == "norm" else (name,)
        places |= {(member, block) for member in members for block in spelt[suffix]}
    return "+".join(terms), depth, places


def _places(specialization: Specialization) -> set[tuple[str, int]]:
    return {(name, block) for name, blocks in specialization.blocks.items() for block in blocks or (-1,)}


@given(specializations())
def test_canonical_text_of_any_specialization_parses_back_to_it(specialization: Specialization) -> None:
    assert parse_specialization(specialization.text, specialization.depth) == specialization


@given(texts())
def test_any_text_is_parsed_to_the_places_it_names(drawn: tuple[str, int, set[tuple[str, int]]]) -> None:
    text, depth, places = drawn
    assert _places(parse_specialization(text, depth)) == places


@given(texts())
def test_canonical_text_is_a_fixed_point(drawn: tuple[str, int, set[tuple[str, int]]]) -> None:
    text, depth, _ = drawn
    canonical = parse_specialization(text, depth).text
    assert parse_specialization(canonical, depth).text == canonical


@given(texts(), st.randoms(use_true_random=False))
def test_two_texts_of_the_same_places_have_one_canonical_text(
    drawn: tuple[str, int, set[tuple[str, int]]], rng: random.Random
) -> None:
    text, depth, places = drawn
    block_by_block = [name if block < 0 else f"{name}@{block}:{block + 1}" for name, block in sorted(places)]
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
    ],
)
def test_canonical_text_is_the_one_written_by_hand(text: str, depth: int, canonical: str) -> None:
    assert parse_specialization(text, depth).text == canonical


def test_default_range_applies_to_the_terms_that_name_none() -> None:
    parsed = parse_specialization("norm1+qkv@last-half+final_norm", 6, default_range="first-third")
    assert parsed.blocks == {"norm1": (0, 1), "qkv": (3, 4, 5), "final_norm": ()}


def test_only_the_baseline_is_false() -> None:
    assert not parse_specialization("none", 6)
    assert parse_specialization("final_norm", 6)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("norms@all", ("'norms'", "did you mean 'norm'?")),
        ("qvk", ("'qvk'", "did you mean 'qkv'?")),
        ("attention", ("'attention'", "known: none, norm, norm1, norm2, qkv, mlp, final_norm")),
        ("qkv@first-thrid", ("'first-thrid'", "did you mean 'first-third'?")),
        ("qkv@3:13", ("'3:13'", "<= 12")),
        ("qkv@4:4", ("'4:4'", "i < j")),
        ("qkv@-1:4", ("'-1:4'", "i:j")),
        ("norm+", ("'norm+'", "''")),
        ("norm@", ("'norm@'", "must follow '@'")),
        ("none+norm", ("'none+norm'", "stands alone")),
        ("final_norm@first-third", ("final_norm", "takes no range")),
    ],
)
def test_a_wrong_text_is_refused_with_its_value_and_the_nearest_name(text: str, named: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_specialization(text, 12)
    for part in named:
        assert part in str(caught.value)
