"""Which arms a sweep has, and that one is there once under whatever texts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from specvit.comparators import COMPARATORS

from .grids import BASE, Expand, arms


def test_expand_components_by_blocks_has_one_baseline_and_eleven_rows(trials_of: Expand) -> None:
    trials = trials_of(
        BASE + "seeds: 1\nfloors: []\nablate:\n  blocks: [first-third, all]\n"
        "  components: [none, norm, qkv, mlp, norm+qkv, norm+qkv+mlp]\n"
    )
    # 6 x 2 with `none` counted once.
    assert len(trials) == 11
    assert [trial.arm for trial in trials if trial.role == "baseline"] == ["none"]


def test_expand_nothing_ablated_has_the_baseline_and_the_floors(trials_of: Expand) -> None:
    trials = trials_of(BASE + "seeds: [7]\n")
    assert [(t.role, t.arm, t.config.treatment.kind, t.seed) for t in trials] == [
        ("baseline", "none", "specialize", 7),
        ("floor", "random init", "random_init", 7),
        ("floor", "raw pixels", "raw_pixels", 7),
    ]


def test_expand_texts_for_the_same_places_are_one_arm(trials_of: Expand) -> None:
    # nano has 6 blocks: the first third is 0:2, and norm is norm1 + norm2.
    trials = trials_of(
        BASE + "seeds: 1\nfloors: []\nablate:\n  components: [qkv, norm]\n  blocks: [first-third, all]\n"
        "  specialize: [qkv@0:2, norm1+norm2, 'qkv@0:1+qkv@1:2', none]\n"
    )
    assert sorted(arms(trials)) == ["none", "norm@all", "norm@first-third", "qkv@all", "qkv@first-third"]


def test_expand_component_with_its_own_range_keeps_it(trials_of: Expand) -> None:
    text = BASE + "seeds: 1\nfloors: []\nablate: {components: [norm@all+qkv], blocks: [first-third]}\n"
    assert arms(trials_of(text)) == ["none", "norm@all+qkv@first-third"]


@pytest.mark.parametrize(("layer_scale", "scales"), [(0.0, ""), (1e-4, "+layerscale@all")])
@pytest.mark.parametrize("axis", ["specialize: [paper]", "{components: [none, paper], blocks: [all, first-half]}"])
def test_the_papers_arm_is_the_trial_of_its_places_by_another_name(
    layer_scale: float, scales: str, axis: str, trials_of: Expand
) -> None:
    text = f"objective: {{recipe: deit3_cpu, layer_scale: {layer_scale}}}\nprobes: {{knn: }}\nseeds: 1\nfloors: []\n"
    written = f"norm@all+qkv@first-third{scales}"
    by_name = trials_of(text + "ablate: " + (axis if axis[0] == "{" else f"{{{axis}}}"))
    by_places = trials_of(text + f"ablate: {{specialize: [{written}]}}")
    assert [(t.trial_id, t.config) for t in by_name] == [(t.trial_id, t.config) for t in by_places]
    assert (arms(by_name), arms(by_places)) == (["none", "paper"], ["none", written])
    assert by_name[1].label == "nano paper seed 0"


def test_the_papers_arm_keeps_its_name_beside_its_places_and_with_modes_tokens_and_priority(
    trials_of: Expand,
) -> None:
    trials = trials_of(
        BASE + "seeds: 1\nfloors: []\npriority: [paper (placebo)]\nablate:\n"
        "  specialize: [norm@all+qkv@first-third, paper]\n  modes: [full, gate]\n  tokens: [cls, placebo]\n"
    )
    assert arms(trials) == ["none", "paper", "paper (placebo)", "paper(gate)", "paper(gate) (placebo)"]


def test_the_papers_arm_has_one_name_in_groups_with_and_without_layer_scales(trials_of: Expand) -> None:
    trials = trials_of(
        BASE + "seeds: 1\nfloors: []\nvary: {objective.layer_scale: [0.0, 0.1]}\nablate: {specialize: [paper]}\n"
    )
    found = {t.config.objective.layer_scale: (t.arm, t.config.treatment.specialize) for t in trials if t.role == "arm"}
    assert found == {
        0.0: ("paper", "norm@all+qkv@first-third"),
        0.1: ("paper", "norm@all+qkv@first-third+layerscale@all"),
    }


def test_rates_of_own_weights_are_axes_and_those_of_the_shared_ones_are_the_trials_of_before(
    trials_of: Expand,
) -> None:
    head = BASE + "seeds: 1\nfloors: []\nablate: {specialize: [qkv, norm], init: [copy]"
    before = trials_of(head + "}\n")
    trials = trials_of(head + ", own_lr: [1, 0.5], own_weight_decay: [0, 1.0]}\n")
    assert [(t.arm, t.config.treatment.own_lr, t.config.treatment.own_weight_decay) for t in trials] == [
        ("none", 1.0, 1.0),
        ("qkv@all (own weight decay 0.0)", 1.0, 0.0),
        ("qkv@all", 1.0, 1.0),
        ("qkv@all (own lr 0.5, own weight decay 0.0)", 0.5, 0.0),
        ("qkv@all (own lr 0.5)", 0.5, 1.0),
        ("norm@all", 1.0, 1.0),  # a norm has no weight that decays
        ("norm@all (own lr 0.5)", 0.5, 1.0),
    ]
    ids = {trial.arm: trial.trial_id for trial in trials}
    assert {trial.arm: trial.trial_id for trial in before} == {a: ids[a] for a in ("none", "qkv@all", "norm@all")}
    assert len(set(ids.values())) == 7


def test_expand_both_inits_double_the_arms_but_not_the_baseline(trials_of: Expand) -> None:
    trials = trials_of(
        BASE + "seeds: 1\nfloors: []\nablate: {components: [none, qkv], init: [independent, copy]}\n"
    )
    assert [(t.arm, t.config.treatment.specialize, t.config.treatment.init) for t in trials] == [
        ("none", "none", "copy"),
        ("qkv@all (independent)", "qkv@all", "independent"),
        ("qkv@all", "qkv@all", "copy"),
    ]


def test_expand_comparators_are_arms_with_their_parameters_and_the_baseline_is_untouched(trials_of: Expand) -> None:
    text = BASE + "seeds: 1\nfloors: []\nablate:\n  components: [qkv]\n"
    plain = {trial.arm: trial.trial_id for trial in trials_of(text)}
    extended = text + "  comparators: [class_attention, {comparator: jumbo, slots: 4}, token_pooling, token_pooling]\n"
    trials = {trial.arm: trial for trial in trials_of(extended)}
    assert set(trials) == {"none", "qkv@all", "class_attention", "jumbo(slots=4)", "token_pooling"}
    assert {arm: trials[arm].trial_id for arm in plain} == plain
    assert all(trial.role == "arm" for arm, trial in trials.items() if arm != "none")
    treatment = trials["jumbo(slots=4)"].config.treatment
    assert (treatment.kind, treatment.specialize, treatment.comparator) == (
        "comparator",
        "none",
        COMPARATORS["jumbo"](slots=4),  # type: ignore[call-arg]
    )
    # nano is 64 wide and 6 deep: slots of 256 in all, 6 norms, an MLP of 256 to 1024 and back.
    extra = 256 + 6 * 512 + 2 * 256 * 1024 + 1024 + 256
    baseline = trials["none"].num_parameters
    assert trials["jumbo(slots=4)"].num_parameters == baseline + extra
    assert trials["jumbo(slots=4)"].extra_parameters_percent == pytest.approx(100 * extra / baseline)
    assert trials["token_pooling"].num_parameters == baseline


def test_expand_comparator_by_name_and_in_full_is_one_trial(trials_of: Expand) -> None:
    text = BASE + "seeds: 1\nfloors: []\nablate: {comparators: [%s]}\n"
    named, full = trials_of(text % "jumbo"), trials_of(text % "{comparator: jumbo, slots: 6}")
    assert [trial.trial_id for trial in named] == [trial.trial_id for trial in full]


def test_token_poolings_that_round_to_one_block_are_one_arm(make_sweep: Callable[..., Sweep]) -> None:
    # Of nano's 6 blocks 0.5 and 0.55 are 3, 0.75 rounds to 4 (half to even: 4.5).
    poolings = [{"comparator": "token_pooling", "after": after} for after in (0.5, 0.55, 0.75)]
    sweep = make_sweep(ablate={"components": ["none"], "comparators": poolings}, seeds=1)
    found = [trial.config.treatment.comparator for trial in expand(sweep)]
    assert [each.after for each in found if each is not None] == [0.5, 0.75]
