"""What holds for the expansion of any grid, and how long it takes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orchestrator.sweep.grid import count_trials, expand

from .grids import BASE, Expand, load_text

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
