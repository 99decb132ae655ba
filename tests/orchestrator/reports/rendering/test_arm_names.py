from __future__ import annotations

import pytest

from orchestrator.reports.rendering.arm_names import abbreviate, factor, short_names

LONG = "norm@first-third+qkv@first-third+mlp@first-third"


@pytest.mark.parametrize(
    ("arm", "factored", "short", "in_ascii"),
    [
        (LONG, "norm+qkv+mlp@first-third", "norm+qkv+mlp@⅓", "norm+qkv+mlp@1/3"),
        ("norm@all+layerscale@all+qkv@first-half", "norm+layerscale@all+qkv@first-half",
         "norm+layerscale@all+qkv@½", "norm+layerscale@all+qkv@1/2"),
        ("norm(gate:token)@all+qkv(lora:8)@all", *3 * ["norm(gate:token)+qkv(lora:8)@all"]),
        ("q@0:4+k@0:4 (placebo, own lr 0.5)", *3 * ["q+k@0:4 (placebo, own lr 0.5)"]),
        ("mlp@last-third", "mlp@last-third", "mlp@last⅓", "mlp@last1/3"),
        *(4 * (arm,) for arm in ("none", "paper(gate)", "raw pixels", "jumbo(width=6)", "a@b c", "")),
    ],
)  # fmt: skip
def test_places_that_terms_share_are_written_once(arm: str, factored: str, short: str, in_ascii: str) -> None:
    assert (factor(arm), abbreviate(arm), abbreviate(arm, is_ascii=True)) == (factored, short, in_ascii)
    assert in_ascii.isascii()


def test_names_that_fit_stay() -> None:
    names = short_names(["none", "norm@first-third"], 20)
    assert names.short == {"none": "none", "norm@first-third": "norm@first-third"}
    assert names.legend == ()


def test_where_one_name_is_too_long_all_are_short_and_the_legend_says_how() -> None:
    names = short_names(["none", "norm@first-third", LONG, "qkv@all"], 20)
    assert list(names.short.values()) == ["none", "norm@⅓", "norm+qkv+mlp@⅓", "qkv@all"]
    assert names.legend == (f"norm+qkv+mlp@first-third is {LONG}; ⅓: first-third",)


def test_what_is_too_long_all_the_same_has_a_letter_that_the_legend_explains() -> None:
    arms = [f"comparator(with={number}, much=to say)" for number in range(28)]
    names = short_names(arms, 20)
    assert names.short[arms[0]] == "comparator(with=…[a]"
    assert names.legend[0] == f"comparator(with=…[a]: {arms[0]}"
    assert len(set(names.short.values())) == 28
    assert names.short[arms[26]] == "comparator(with…[aa]"
    assert {len(name) for name in names.short.values()} == {20}
    assert short_names(arms, 20, is_ascii=True).short[arms[1]] == "comparator(with..[b]"


def test_no_two_arms_have_one_name() -> None:
    arms = ["norm@all+qkv@all+mlp@first-third", "norm+qkv@all+mlp@first-third"]
    assert len(set(short_names(arms, 12).short.values())) == 2


def test_names_are_in_one_line() -> None:
    assert short_names(["a\nb\x1b"], 20).short == {"a\nb\x1b": r"a b\x1b"}


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("norm@all+qkv@all+mlp@first-third", "norm+qkv@all+mlp@first-third"),
        ("placebo of norm@all+qkv@all (control)", "placebo of norm+qkv@all (control)"),
        ("norm@0:4 x mlp@0:4", "norm x mlp@0:4"),
        ("norm@all+qkv@all-but-one", "norm@all+qkv@all-but-one"),
        ("norm@all", "norm@all"),
        ("DINOv2 ViT-S/14 (external)", "DINOv2 ViT-S/14 (external)"),
    ],
)
def test_neighbours_share_a_place_in_any_text_that_names_arms(text: str, shared: str) -> None:
    assert factor(text) == shared
