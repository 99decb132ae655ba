"""Sweeps through the whole program: stand-in trials, seeds that grow, pruning, ledger and tables, as a user runs them.

Nothing is trained: a trial reports a rung and an end, both made of its seed's noise, its own, and its arm's effect.
``make simulate-program``: some minutes on a core that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from orchestrator.execution.local import LocalExecutor
from orchestrator.reports.ablation_table import tables_of
from orchestrator.run import run_sweep
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.statistics import Design, Verdict
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.events import Event, Progressed
from orchestrator.trials.records import State
from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.trial import Observer, TrialResult

from ..waiting import LIMIT_S

ARMS = ["norm", "qkv", "mlp", "proj", "norm+qkv"]
"""Each in two ranges of blocks: ten arms."""
SEED_SD, OWN_SD, RUNG_SD = 3.0, 1.0, 0.5
"""Of what the trials of a seed share, of what a trial has of its own, and of what a rung has beside that."""
SEEDS = {"start": 4, "most": 16}
METRIC = "knn_top1"
ROOT = Path(__file__).parents[2]
CASES = {"no effect": (), "two arms at 2 sd": (2.0, 2.0)}
"""True differences of the first arms, in standard deviations of a trial within a seed."""


@dataclass(frozen=True)
class Found:
    """What sweeps of one kind came to.

    Attributes:
        false: Share of sweeps in which an arm without an effect was called better or worse.
        power: Share of arms with an effect that were found on the right side.
        trials: Mean trials of baseline and arms that ran to their ends or were pruned.
        fixed_trials: Trials that a fixed design takes for the same power, at most those of 16 seeds.
    """

    false: float
    power: float
    trials: float
    fixed_trials: int


class _Judged(SweepCallback):
    """Tells a stand-in that the judge has seen its rung, which a real trial trains on for long after."""

    def __init__(self) -> None:
        self._is_over = threading.Event()

    def on_event(self, event: Event) -> None:
        if isinstance(event, Progressed) and event.step == event.steps:
            self._is_over.set()

    def wait(self) -> None:
        """Wait until the event that follows the rung is on record."""
        assert self._is_over.wait(LIMIT_S)
        self._is_over.clear()


def simulate_program(num_sweeps: int, effects: tuple[float, ...], *, pruner: str, first: int = 0) -> Found:
    """Run sweeps with ten arms, the first of which have effects.

    Args:
        num_sweeps: Their number.
        effects: True differences of the first arms to the baseline, in standard deviations of a trial within a seed.
        pruner: Who prunes at the rung; ``none`` for nobody.
        first: Number of the first sweep, from which its noise follows.
    """
    false = found = trials = 0
    for number in range(first, first + num_sweeps):
        verdicts, ran = _run_one(number, effects, pruner)
        true = dict(zip(verdicts, effects, strict=False))
        false += any(verdict in (Verdict.BETTER, Verdict.WORSE) for arm, verdict in verdicts.items() if arm not in true)
        found += sum(verdicts[arm] is (Verdict.BETTER if effect > 0 else Verdict.WORSE) for arm, effect in true.items())
        trials += ran
    power = found / (num_sweeps * len(effects)) if effects else float("nan")
    return Found(false / num_sweeps, power, trials / num_sweeps, _fixed_trials(power, effects))


def _fixed_trials(power: float, effects: tuple[float, ...]) -> int:
    """Return the trials of the smallest fixed design with that power for the smallest effect."""
    num_arms, most = 2 * len(ARMS), SEEDS["most"]
    for num_seeds in range(SEEDS["start"], most):
        if effects and Design(num_arms, num_seeds, OWN_SD).power(min(effects)) >= power:
            return num_seeds * (num_arms + 1)
    return most * (num_arms + 1)


def _run_one(number: int, effects: tuple[float, ...], pruner: str) -> tuple[dict[str, Verdict], int]:
    judged = _Judged()
    with tempfile.TemporaryDirectory() as name, _stand_ins(number, effects, judged):
        folder = Path(name)
        (folder / "sweep.yaml").write_text(json.dumps(_sweep(pruner)))
        sweep = load_sweep(folder / "sweep.yaml")
        outcome = run_sweep(
            sweep, folder=folder / "results", make_executor=lambda data, _: LocalExecutor(data), callbacks=[judged]
        )
    (table,) = tables_of(outcome.records, outcome.info).values()
    verdicts = {}
    for row in table.rows[1:]:
        difference = row.metrics[METRIC].difference
        verdict = None if difference is None else difference.verdict
        verdicts[row.arm] = Verdict.UNDECIDED if verdict is None or row.pruned else verdict
    ran = sum(record.state in (State.DONE, State.PRUNED) for record in outcome.records)
    return {arm: verdicts[arm] for arm in _order(verdicts)}, ran


def _order(arms: dict[str, Verdict]) -> list[str]:
    """Return the arms in the order of the effects: by name, which has nothing to do with their size."""
    return sorted(arms)


@contextmanager
def _stand_ins(number: int, effects: tuple[float, ...], judged: _Judged) -> Iterator[None]:
    names: list[str] = []

    def run(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        arm = config.treatment.specialize
        place = names.index(arm) if arm in names else len(effects)
        shared = np.random.default_rng([number, config.seed]).normal(scale=SEED_SD)
        own = np.random.default_rng([number, config.seed, *arm.encode()])
        value = 50.0 + shared + own.normal(scale=OWN_SD) + (effects[place] if place < len(effects) else 0.0)
        observer.rung(step=1, metrics={METRIC: value + own.normal(scale=RUNG_SD)})
        observer.progress(step=2, steps=2, images_per_s=1.0)
        judged.wait()
        if observer.should_stop():
            return TrialResult({}, stopped_at=1)
        return TrialResult({METRIC: value, "loss": 1.0})

    ranges = ("all", "first-third")
    arms = sorted("+".join(f"{part}@{blocks}" for part in arm.split("+")) for arm in ARMS for blocks in ranges)
    names += arms[: len(effects)]
    with (
        patch("specvit.trial.run_trial", run),
        patch("orchestrator.reports.curves.draw_curves", lambda *_: None),
        patch("orchestrator.execution.worker._MOMENT_S", 0.0),
    ):
        yield


def _sweep(pruner: str) -> dict[str, object]:
    return {
        "data": {"source": "scenes", "num_train": 64, "num_val": 32},
        "objective": {"recipe": "mae_cpu", "steps": 2, "batch_size": 8},
        "probes": {"knn": {}},
        "rungs": {"count": 1, "num_images": 32},
        "seeds": SEEDS,
        "ablate": {"components": ["none", *ARMS], "blocks": ["all", "first-third"]},
        "floors": [],
        "pruning": {"pruner": pruner},
        "keep_weights": False,
        "checkpoint_every_s": 0,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate as the command line says, and write what was found; return the exit code."""
    parser = argparse.ArgumentParser(prog="simulate-program", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sweeps", type=int, default=200, help="sweeps of a case (default: %(default)s)")
    folder = ROOT / "results" / "studies" / "statistics"
    parser.add_argument("--results", type=Path, default=folder, help="folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    found = {}
    for number, (case, effects) in enumerate(CASES.items()):
        print(f"through the program: {case}", file=sys.stderr, flush=True)
        found[case] = simulate_program(options.sweeps, effects, pruner="wilcoxon", first=100_000 * number)
    (options.results / "program.md").write_text(_report(options.sweeps, found))
    return 0


def _report(num_sweeps: int, found: Mapping[str, Found]) -> str:
    """Return what was found in so many sweeps of each case, as Markdown."""
    lines = [
        "# The same through the whole program",
        "",
        f"Made by `make simulate-program`: {num_sweeps} sweeps a case through `run`, with stand-in trials, ten "
        f"arms, `seeds: {{start: {SEEDS['start']}, most: {SEEDS['most']}}}` (looks at "
        f"{', '.join(map(str, GrowingSeeds(**SEEDS).all_looks))} seeds) and the Wilcoxon pruner at one rung, whose "
        f"value has noise of {RUNG_SD:g} beside that of its end. A pruned trial counts as a whole one. *Fixed* is the "
        "smallest fixed design of the same power, and its trials.",
        "",
        "| case | a false verdict in | power | trials | fixed | of these |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case, each in found.items():
        power, fixed, share = "", "", ""
        if CASES[case]:
            power, fixed = f"{100 * each.power:.1f}%", str(each.fixed_trials)
            share = f"{100 * each.trials / each.fixed_trials:.0f}%"
        lines.append(f"| {case} | {100 * each.false:.1f}% | {power} | {each.trials:.1f} | {fixed} | {share} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
