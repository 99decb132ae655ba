"""Expansion: which trials a sweep has, in which order, under which ids."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orchestrator.sweep.grid import arm_texts, count_trials, expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.identity import arm_id, group_id, trial_id
from orchestrator.trials.trial import Trial
from specvit.comparators import COMPARATORS
from specvit.recipes import RECIPES

BASE = "objective: {recipe: dinov2_cpu, steps: 150}\nprobes: {knn: }\n"

Expand = Callable[..., tuple[Trial, ...]]


def load_text(path: Path, text: str, *overrides: str) -> Sweep:
    path.write_text(text, encoding="utf-8")
    return load_sweep(path, overrides)


@pytest.fixture
def trials_of(tmp_path: Path) -> Expand:
    return lambda text, *overrides: expand(load_text(tmp_path / "x.yaml", text, *overrides))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grid") / "x.yaml"


def arms(trials: tuple[Trial, ...]) -> list[str]:
    return [trial.arm for trial in trials]


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
    assert arms(trials) == ["none", "paper (placebo)", "paper(gate)", "paper(gate) (placebo)", "paper"]


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


def test_expand_order_is_seeds_then_roles_then_size_then_file(trials_of: Expand) -> None:
    trials = trials_of(
        BASE + "seeds: [3, 1]\nvary: {model.scale: [nano, micro]}\n"
        "ablate: {specialize: [norm1@0:1, norm1@1:2, qkv@all]}\n"
    )
    labels = [trial.label for trial in trials]
    assert labels[:13] == [
        "micro none seed 3",
        "nano none seed 3",
        "micro random init seed 3",
        "nano random init seed 3",
        "nano raw pixels seed 3",
        "micro raw pixels seed 3",
        "micro qkv@all seed 3",
        "micro norm1@0:1 seed 3",
        "micro norm1@1:2 seed 3",
        "nano qkv@all seed 3",
        "nano norm1@0:1 seed 3",
        "nano norm1@1:2 seed 3",
        "micro none seed 1",
    ]
    assert labels[12:] == [label.replace("seed 3", "seed 1") for label in labels[:12]]


def test_expand_parameters_are_the_arithmetic_of_a_vit(trials_of: Expand) -> None:
    text = "model: {scale: small, patch_size: 16}\ndata: {source: scenes, image_size: 224}\n"
    trials = trials_of(
        text + "objective: {recipe: deit3_cpu, cls_position: true}\nprobes: {knn: }\nseeds: 1\n"
        "ablate: {specialize: [norm@all, mlp@0:1]}\n"
    )
    by_arm = {trial.arm: trial for trial in trials}
    # ViT-S/16 without its head (Touvron et al. 2021): 21,665,664 parameters.
    assert by_arm["none"].num_parameters == by_arm["random init"].num_parameters == 21_665_664
    assert by_arm["raw pixels"].num_parameters == 0
    # Two norms of 2 x 384 in each of 12 blocks.
    assert by_arm["norm@all"].num_parameters == 21_665_664 + 12 * 2 * 2 * 384
    assert by_arm["norm@all"].extra_parameters_percent == pytest.approx(100 * 18_432 / 21_665_664)
    assert by_arm["mlp@0:1"].num_parameters - 21_665_664 == 2 * 384 * 1536 + 384 + 1536


def test_expand_varied_values_make_group_text_and_label(trials_of: Expand) -> None:
    trials = trials_of(
        BASE + "seeds: 1\nfloors: []\n"
        "vary:\n  model.scale: [nano]\n  objective.lr: [1e-3, 1]\n  data.seed: [5]\n"
        "  objective.global_scale: [[0.1, 1]]\n"
    )
    assert [(trial.group, trial.label) for trial in trials] == [
        (
            f"model.scale=nano, objective.lr={lr}, data.seed=5, objective.global_scale=[0.1,1.0]",
            f"nano lr={lr} data.seed=5 global_scale=[0.1,1.0] none seed 0",
        )
        for lr in ("0.001", "1.0")
    ]


def test_expand_nothing_varied_has_no_group_text(trials_of: Expand) -> None:
    assert {trial.group for trial in trials_of(BASE)} == {""}


def test_expand_ids_are_those_of_the_configurations(trials_of: Expand) -> None:
    for trial in trials_of(BASE + "vary: {model.scale: [nano, micro]}\nablate: {components: [qkv]}\n"):
        assert trial.trial_id == trial_id(trial.config)
        assert trial.arm_id == arm_id(trial.config)
        assert trial.group_id == group_id(trial.config)


def test_expand_rung_probes_are_named_in_the_configuration(trials_of: Expand) -> None:
    assert {trial.config.rungs.probes for trial in trials_of(BASE)} == {("knn",)}


@pytest.mark.parametrize(
    "change",
    [
        "resources={cpus: 4, gpus: 1}",
        "resources={nano: {gpus: 0.5, labels: {kind: A100}}, custom: {disk: 1}}",
        "time_budget_h=1",
        "max_gpu_hours=1",
        "max_retries=0",
        "stall_timeout_s=5",
        "name=other",
        "question=other",
        "pruning={pruner: median}",
        f"objective.lr={RECIPES['dinov2_cpu']().lr}",  # a default written out
        "rungs.probes=[knn]",
    ],
)
def test_expand_what_computes_the_same_keeps_the_ids(trials_of: Expand, change: str) -> None:
    before, after = trials_of(BASE), trials_of(BASE, change)
    assert [trial.trial_id for trial in before] == [trial.trial_id for trial in after]


def test_expand_added_arm_leaves_the_other_ids(trials_of: Expand) -> None:
    before = {t.trial_id for t in trials_of(BASE + "ablate: {components: [norm]}\n")}
    after = {t.trial_id for t in trials_of(BASE + "ablate: {components: [qkv, norm]}\nseeds: 4\n")}
    assert before < after


COMPONENTS = st.lists(
    st.sampled_from(["none", "norm", "norm1", "qkv", "mlp", "norm+qkv", "qkv@0:2", "final_norm"]),
    min_size=1,
    max_size=4,
)
INITS = st.lists(st.sampled_from(["copy", "independent"]), min_size=1)
BLOCKS = st.lists(st.sampled_from(["all", "first-third", "last-half", "0:2", "2:4"]), min_size=1, max_size=3)
SCALES = st.lists(st.sampled_from(["nano", "micro", "tiny"]), min_size=1, max_size=3, unique=True)
RATES = st.lists(st.sampled_from([1e-3, 2e-3, 1, 0.5]), min_size=1, max_size=2, unique=True)
SEEDS = st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)


def grid_text(
    components: list[str],
    blocks: list[str],
    inits: list[str],
    scales: list[str],
    rates: list[float],
    seeds: list[int],
) -> str:
    return (
        f"{BASE}seeds: {seeds}\nablate: {{components: {components}, blocks: {blocks}, init: {inits}}}\n"
        f"vary: {{model.scale: {scales}, objective.lr: {rates}}}\n"
    )


@hypothesis_settings(max_examples=40, deadline=None)
@given(COMPONENTS, BLOCKS, INITS, SCALES, RATES, SEEDS)
def test_expand_any_grid_has_every_arm_and_seed_once_and_one_baseline_a_group(
    scratch: Path,
    components: list[str],
    blocks: list[str],
    inits: list[str],
    scales: list[str],
    rates: list[float],
    seeds: list[int],
) -> None:
    sweep = load_text(scratch, grid_text(components, blocks, inits, scales, rates, seeds))
    trials = expand(sweep)
    assert len(trials) == count_trials(sweep) == len({trial.trial_id for trial in trials})
    assert len({trial.group_id for trial in trials}) == len(scales) * len(rates)
    pairs = Counter((trial.arm_id, trial.seed) for trial in trials)
    assert set(pairs.values()) == {1}
    assert len(pairs) == len({arm for arm, _ in pairs}) * len(seeds)
    assert len({(trial.group_id, trial.arm) for trial in trials}) == len({trial.arm_id for trial in trials})
    baselines = Counter(trial.group_id for trial in trials if trial.role == "baseline")
    assert set(baselines.values()) == {len(seeds)}
    assert len(baselines) == len(scales) * len(rates)
    assert [trial.seed for trial in trials] == sorted((t.seed for t in trials), key=seeds.index)


@hypothesis_settings(max_examples=30, deadline=None)
@given(COMPONENTS, BLOCKS, SCALES, RATES, SEEDS, st.randoms(use_true_random=False))
def test_expand_permuted_axes_give_the_same_ids(
    scratch: Path,
    components: list[str],
    blocks: list[str],
    scales: list[str],
    rates: list[float],
    seeds: list[int],
    random: object,
) -> None:
    axes = [components, blocks, ["copy"], scales, rates, seeds]
    before = {trial.trial_id for trial in expand(load_text(scratch, grid_text(*axes)))}  # type: ignore[arg-type]
    for axis in axes:
        random.shuffle(axis)  # type: ignore[attr-defined]
    assert {trial.trial_id for trial in expand(load_text(scratch, grid_text(*axes)))} == before  # type: ignore[arg-type]


def test_expand_takes_a_trial_as_long_in_ten_thousand_as_in_a_thousand(scratch: Path) -> None:
    seconds = {}
    for num_rates in (10, 100):
        rates = [index / 1000 for index in range(1, num_rates + 1)]
        ablate = "floors: [random_init]\nablate: {components: [norm, qkv]}\n"
        sweep = load_text(scratch, f"{BASE}seeds: 25\n{ablate}vary: {{objective.lr: {rates}}}\n")
        start = time.process_time()
        assert len(expand(sweep)) == num_rates * 25 * 4
        seconds[num_rates] = time.process_time() - start
    # What grows with the square would take a trial ten times as long.
    assert seconds[100] < 4 * 10 * seconds[10]


def test_expand_values_that_come_again_cost_and_change_nothing(trials_of: Expand) -> None:
    text = f"{BASE}seeds: 1\nmodel: {{high_norm: 'registers:4'}}\n"
    text += "ablate: {components: %s, init: %s, tokens: %s, registers_with: %s}\n"
    axes = (["norm", "qkv"], ["copy"], ["cls"], ["patches", "cls"])
    once, often = (trials_of(text % tuple(axis * number for axis in axes)) for number in (1, 1000))
    assert [trial.trial_id for trial in often] == [trial.trial_id for trial in once]


def test_grid_import_leaves_heavy_packages_alone() -> None:
    heavy = ("torch", "ray", "optuna", "pandas", "timm")
    code = (
        "import sys, orchestrator.sweep.grid, orchestrator.sweep.loading, orchestrator.trials.identity;"
        f"sys.exit(', '.join(set(sys.modules) & set({heavy!r})))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""


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


PRIORITIES = BASE + "seeds: 2\nablate: {components: [norm, qkv, mlp, norm+qkv], init: [copy, independent]}\n"


def test_expand_arms_of_the_priority_come_first_within_a_seed_after_baseline_and_floors(trials_of: Expand) -> None:
    plain = trials_of(PRIORITIES)
    texts = ["qkv@all (independent)", "norm@all"]
    trials = trials_of(PRIORITIES, f"priority={texts}")
    assert sorted(t.trial_id for t in trials) == sorted(t.trial_id for t in plain)
    for seed in (0, 1):
        before = [t.arm for t in plain if t.seed == seed]
        expected = [*before[:3], *texts, *(arm for arm in before[3:] if arm not in texts)]
        assert [t.arm for t in trials if t.seed == seed] == expected
    assert [t.seed for t in trials] == [t.seed for t in plain]


def test_expand_a_priority_holds_in_all_groups_before_the_others_of_any(trials_of: Expand) -> None:
    text = BASE + "seeds: 1\nfloors: []\nvary: {model.scale: [nano, micro]}\nablate: {components: [norm, mlp]}\n"
    trials = trials_of(text, "priority=[norm@all]")
    assert [(t.config.model.scale, t.arm) for t in trials] == [
        (scale, arm) for arm in ("none", "norm@all", "mlp@all") for scale in ("micro", "nano")
    ]


def test_arm_texts_are_the_arms_of_the_table_each_once(trials_of: Expand, scratch: Path) -> None:
    sweep = load_text(scratch, PRIORITIES, "vary={objective.lr: [1e-3, 1e-4]}")
    arms = dict.fromkeys(t.arm for t in expand(sweep) if t.role == "arm")
    assert sorted(arm_texts(sweep)) == sorted(arms)
    assert len(arm_texts(sweep)) == 8


def test_token_poolings_that_round_to_one_block_are_one_arm(make_sweep: Callable[..., Sweep]) -> None:
    # Of nano's 6 blocks 0.5 and 0.55 are 3, 0.75 rounds to 4 (half to even: 4.5).
    poolings = [{"comparator": "token_pooling", "after": after} for after in (0.5, 0.55, 0.75)]
    sweep = make_sweep(ablate={"components": ["none"], "comparators": poolings}, seeds=1)
    found = [trial.config.treatment.comparator for trial in expand(sweep)]
    assert [each.after for each in found if each is not None] == [0.5, 0.75]
