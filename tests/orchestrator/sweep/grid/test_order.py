"""In which order the trials of a sweep come and start, and how they are named in its groups."""

from __future__ import annotations

from pathlib import Path

from orchestrator.sweep.grid import arm_texts, expand, start_order
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.trial import Trial

from .grids import BASE, Expand, load_text


def started(sweep: Sweep) -> list[Trial]:
    return start_order(sweep, expand(sweep))


TWO_SCALES = (
    BASE + "seeds: [3, 1]\nvary: {model.scale: [nano, micro]}\n"
    "ablate: {specialize: [norm1@0:1, norm1@1:2, qkv@all]}\n"
)


def test_expand_order_is_seeds_then_groups_then_the_rows_of_the_file(trials_of: Expand) -> None:
    labels = [trial.label for trial in trials_of(TWO_SCALES)]
    rows = ("none", "random init", "raw pixels", "norm1@0:1", "norm1@1:2", "qkv@all")
    assert labels == [f"{scale} {row} seed {seed}" for seed in (3, 1) for scale in ("nano", "micro") for row in rows]


def test_trials_start_by_seed_then_role_then_size_then_file(scratch: Path) -> None:
    labels = [trial.label for trial in started(load_text(scratch, TWO_SCALES))]
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


PRIORITIES = BASE + "seeds: 2\nablate: {components: [norm, qkv, mlp, norm+qkv], init: [copy, independent]}\n"


def test_arms_of_the_priority_start_first_within_a_seed_after_baseline_and_floors(scratch: Path) -> None:
    plain = started(load_text(scratch, PRIORITIES))
    texts = ["qkv@all (independent)", "norm@all"]
    sweep = load_text(scratch, PRIORITIES, f"priority={texts}")
    trials = started(sweep)
    assert sorted(t.trial_id for t in trials) == sorted(t.trial_id for t in plain)
    for seed in (0, 1):
        before = [t.arm for t in plain if t.seed == seed]
        expected = [*before[:3], *texts, *(arm for arm in before[3:] if arm not in texts)]
        assert [t.arm for t in trials if t.seed == seed] == expected
    assert [t.seed for t in trials] == [t.seed for t in plain]
    assert expand(sweep) == expand(load_text(scratch, PRIORITIES))  # the rows of the tables stay where they are


def test_a_priority_holds_in_all_groups_before_the_others_of_any(scratch: Path) -> None:
    text = BASE + "seeds: 1\nfloors: []\nvary: {model.scale: [nano, micro]}\nablate: {components: [norm, mlp]}\n"
    trials = started(load_text(scratch, text, "priority=[norm@all]"))
    assert [(t.config.model.scale, t.arm) for t in trials] == [
        (scale, arm) for arm in ("none", "norm@all", "mlp@all") for scale in ("micro", "nano")
    ]


def test_arm_texts_are_the_arms_of_the_table_each_once(trials_of: Expand, scratch: Path) -> None:
    sweep = load_text(scratch, PRIORITIES, "vary={objective.lr: [1e-3, 1e-4]}")
    arms = dict.fromkeys(t.arm for t in expand(sweep) if t.role == "arm")
    assert sorted(arm_texts(sweep)) == sorted(arms)
    assert len(arm_texts(sweep)) == 8
