"""Judges the verdicts of a published study by sweeps drawn from its own trials: ``make resample ARGS=FOLDER``.

Each sweep has some of the study's seeds, every arm the same ones, and is tabulated as any sweep is. Drawn without
replacement, sweeps are as independent as the study has seeds to give; drawn with it, a seed that comes twice counts
twice, and verdicts come more easily than they ought to.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.comparisons import Claims
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.statistics import Verdict
from orchestrator.trials.records import TrialRecord

LOOKED_AT = (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT, Verdict.UNDECIDED)


@dataclass(frozen=True)
class Resampled:
    """What sweeps that were drawn from a study say of a row of its table.

    Attributes:
        group: The row's group; empty if there is one alone.
        name: The arm, control, main effect or interaction.
        kind: ``arm``, ``control``, or ``effect over`` the components of a factorial.
        verdicts: In how many sweeps each verdict was given.
    """

    group: str
    name: str
    kind: str
    verdicts: Counter[Verdict]


def resample(
    data: SweepData, *, num_sweeps: int, num_seeds: int, replacement: bool = False, seed: int = 0
) -> list[Resampled]:
    """Draw sweeps from a study's seeds and count the verdicts of their tables.

    Args:
        data: The study.
        num_sweeps: Sweeps to draw.
        num_seeds: Seeds of each.
        replacement: Whether a seed may come several times in a sweep, as that many seeds.
        seed: Of the draws.

    Raises:
        ValueError: If the study has too few seeds.
    """
    seeds = sorted({record.trial.seed for record in data.records})
    if num_seeds > len(seeds) and not replacement:
        raise ValueError(f"num_seeds must be at most the study's {len(seeds)} without replacement, not {num_seeds}")
    claims = replace(Claims.of(data.info), growth=None)
    primary = claims.primary_of(data.info.metrics)
    by_seed: dict[int, list[TrialRecord]] = {each: [] for each in seeds}
    for record in data.records:
        by_seed[record.trial.seed].append(record)
    draw, found = np.random.default_rng(seed), {}
    for _ in range(num_sweeps):
        chosen = draw.choice(seeds, num_seeds, replace=replacement)
        records = [
            replace(record, trial=replace(record.trial, seed=place))
            for place, each in enumerate(chosen)
            for record in by_seed[int(each)]
        ]
        for group, table in build_tables(records, (primary,), claims).items():
            rows = [(str(row.role), row.arm, row.metrics[primary].difference) for row in table.rows]
            verdicts = [(*key, cell.verdict) for *key, cell in rows if cell is not None and cell.verdict is not None]
            verdicts += [
                (f"effect over {', '.join(reading.factors)}", effect.name, effect.metrics[primary].verdict)
                for reading in table.factorials
                for effect in reading.effects
                if primary in effect.metrics
            ]
            for kind, name, verdict in verdicts:
                found.setdefault((group, kind, name), Counter())[verdict] += 1
    return [Resampled(group, name, kind, verdicts) for (group, kind, name), verdicts in found.items()]


def render(found: Sequence[Resampled], num_sweeps: int) -> str:
    """Return a Markdown table of the shares of verdicts, in percent of the sweeps."""
    lines = [f"| | {' | '.join(LOOKED_AT)} |", f"| --- |{' ---: |' * len(LOOKED_AT)}"]
    for row in found:
        name = " ".join(filter(None, (row.group, f"`{row.name}`", "" if row.kind == "arm" else f"({row.kind})")))
        shares = (f"{row.verdicts[verdict] / num_sweeps:.1%}" for verdict in LOOKED_AT)
        lines.append(f"| {name} | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Resample the study that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="resampled", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path, help="folder of a published study, with trials.csv and sweep.json")
    parser.add_argument("--sweeps", type=int, default=200, help="sweeps to draw (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, help="seeds of a sweep (default: %(default)s)")
    parser.add_argument("--replacement", action="store_true", help="let a seed come several times")
    options = parser.parse_args(arguments)
    data = SweepData.of_folder(options.study)
    found = resample(data, num_sweeps=options.sweeps, num_seeds=options.seeds, replacement=options.replacement)
    print(render(found, options.sweeps), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
