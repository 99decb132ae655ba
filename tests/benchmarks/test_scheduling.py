"""How well a thousand slots are kept busy, and how fast that is foreseen. Run by ``make bench``.

Simulated: the scheduler that runs real trials, before an executor whose clock jumps.
"""

from __future__ import annotations

import heapq
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from orchestrator.execution.capacity import Node
from orchestrator.execution.simulated import Conditions
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.run import describe
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.simulation import simulate
from orchestrator.sweep.grid import expand, start_order
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.events import Finished
from orchestrator.trials.trial import Trial

COMPONENTS = ["none", "norm", "qkv", "mlp", "proj", "norm+qkv", "norm+mlp", "qkv+mlp", "norm1", "norm2"]
SWEEP = {
    "objective": {"recipe": "dinov2_cpu"},
    "probes": {"knn": {}, "linear": {}, "segmentation": {}},
    "ablate": {
        "components": COMPONENTS,
        "blocks": ["first-third", "first-half", "last-half", "last-third", "all"],
        "modes": ["full", "gate"],
    },
    "vary": {"model.scale": ["nano", "micro", "mini"], "objective.lr": [0.001, 0.002, 0.003, 0.004]},
}
"""12 groups of 93 arms: 1,116 trials a seed."""

MEAN_S = 1800.0


def sweep_file(folder: Path, num_seeds: int) -> Path:
    path = folder / "big.yaml"
    path.write_text(json.dumps(SWEEP | {"seeds": num_seeds}))
    return path


def draw_lengths(trials: list[Trial], *, group: float, arm: float, trial: float) -> dict[str, float]:
    """Draw lengths with log-normal factors of a group, an arm and a trial, half an hour on the mean."""
    draw = random.Random(1)
    groups = {t.group_id: draw.lognormvariate(0, group) for t in trials}
    arms = {t.arm_id: groups[t.group_id] * draw.lognormvariate(0, arm) for t in trials}
    drawn = {t.trial_id: arms[t.arm_id] * draw.lognormvariate(0, trial) for t in trials}
    mean = sum(drawn.values()) / len(drawn)
    return {trial_id: MEAN_S * length / mean for trial_id, length in drawn.items()}


SPREADS = {
    "by group and arm": {"group": 0.5, "arm": 0.3, "trial": 0.05},
    "by group": {"group": 0.7, "arm": 0.0, "trial": 0.1},
    "by arm": {"group": 0.0, "arm": 0.7, "trial": 0.05},
    "by nothing that could be known": {"group": 0.0, "arm": 0.0, "trial": 0.5},
}


def longest_first(lengths: dict[str, float], num_slots: int) -> float:
    """Return how long it takes if nothing fails, all lengths are known before, and the longest trials go first."""
    slots = [0.0] * num_slots
    for length in sorted(lengths.values(), reverse=True):
        heapq.heappushpop(slots, slots[0] + length)
    return max(slots)


@pytest.mark.parametrize("num_seeds", [9, 3])
@pytest.mark.parametrize("spread", SPREADS)
def test_makespan_on_a_thousand_slots_over_lower_bound(
    benchmark: BenchmarkFixture, spread: str, num_seeds: int, tmp_path: Path
) -> None:
    """With 1% of the attempts that fail, ratios to max(work / slots, longest trial): no schedule is shorter."""
    sweep = load_sweep(sweep_file(tmp_path, num_seeds))
    trials = start_order(sweep, expand(sweep))
    lengths = draw_lengths(trials, **SPREADS[spread])
    conditions = Conditions(failure_rate=0.01)
    lower_bound_s = max(sum(lengths.values()) / 1000, *lengths.values())
    ratios: dict[str, float] = {}

    def run() -> None:
        for name, num_known in {"one seed measured": len(trials) // num_seeds, "nothing measured": 0}.items():
            known = TrialDurations()
            for trial in trials[:num_known]:
                known.add(trial.group_id, trial.role, lengths[trial.trial_id], trial.arm_id)
            ran = simulate(
                trials,
                lengths,
                allocator=Allocator(sweep.file.resources),
                nodes=[Node(f"{number}", {"CPU": 8.0}) for number in range(125)],
                known=known,
                conditions=conditions,
                draw=random.Random(2),
            )
            ratios[name] = round(ran.makespan_s / lower_bound_s, 3)
        ratios["longest first, all foreseen"] = round(longest_first(lengths, 1000) / lower_bound_s, 3)

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["ratios"] = ratios
    told = ", ".join(f"{name} {ratio}" for name, ratio in ratios.items())
    longest = max(lengths.values()) / (sum(lengths.values()) / 1000)
    print(f"\n{len(trials)} trials, spread {spread}, the longest {longest:.2f} of work / slots: {told}")


def test_plan_of_ten_thousand_trials_in_seconds(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """The whole command, with a ledger that has a seed measured, on 64 slots."""
    path = sweep_file(tmp_path, 10)
    sweep = load_sweep(path)
    trials = list(expand(sweep))
    lengths = draw_lengths(trials, **SPREADS["by group and arm"])
    with Ledger.open(tmp_path / "results" / sweep.name / LEDGER_NAME) as ledger, ledger.transaction():
        ledger.register(describe(sweep, trials, {}), trials, collect_provenance())
        for trial in trials[: len(trials) // 10]:
            attempt, seconds = ledger.begin_attempt(trial.trial_id), lengths[trial.trial_id]
            metrics = {"knn_top1": 50.0, "linear_top1": 50.0, "miou": 50.0}
            ledger.record(Finished(trial.trial_id, attempt, metrics, seconds=seconds, core_seconds=seconds))
    program = "import sys; from orchestrator.cli.app import main; main()"
    command = [sys.executable, "-c", program, "plan", str(path), "--slots", "64"]

    def plan() -> str:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    out = benchmark.pedantic(plan, rounds=3)
    started = time.perf_counter()
    simulate(trials, lengths, allocator=Allocator(sweep.file.resources), num_slots=64, known=TrialDurations())
    simulated_s = time.perf_counter() - started
    print(f"\nplan of {len(trials)} trials: {benchmark.stats.stats.median:.2f} s, one simulation {simulated_s:.2f} s")
    print("\n".join(out.splitlines()[-3:]))
