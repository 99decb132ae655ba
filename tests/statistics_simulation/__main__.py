"""Simulates sweeps and judges the statistics of the tables by them: ``make simulate``; some minutes on one core.

What comes out depends on the code and the numbers of sweeps alone: the same command writes the same files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .fixed import check_variances, simulate_fixed
from .growing import simulate_confirmation, simulate_looks_of
from .report import Row, write_report
from .settings import KINDS, NUM_ARMS, Setting, all_settings

ROOT = Path(__file__).parents[2]
SPENDINGS = ("even", "obrien_fleming", "pocock")
GROWING_KINDS = tuple(kind for kind in KINDS if kind != "missing")
DROPPING = {("even", 5), ("even", 10), ("pocock", 10)}
"""Spending and arms whose looks also go through ``decide``, arms dropping out."""
NUM_FRESH = (4, 8)
VARIANCE_SETTINGS = [
    Setting(10, num_seeds, kind) for kind in ("equal", "t5", "unequal", "one x3") for num_seeds in (4, 5, 6, 10)
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate as the command line says, and write the report; return the exit code."""
    options = _parser().parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    write_report(
        options.results,
        fixed=_fixed(options.sweeps),
        growing=_growing(options.sweeps, options.dropping),
        confirmed=_confirmed(options.sweeps),
        variances=_variances(options.sweeps // 10),
        num_sweeps=options.sweeps,
        num_dropping=options.dropping,
    )
    _say(f"{options.results / 'README.md'} says what was found")
    return 0


def _fixed(num_sweeps: int) -> list[Row]:
    rows = []
    for seed, setting in enumerate(all_settings()):
        _say(f"fixed: {setting}")
        rows.append(_row(setting) | vars(simulate_fixed(setting, num_sweeps, seed)))
    return rows


def _growing(num_sweeps: int, num_dropping: int) -> list[Row]:
    rows = []
    for kind in GROWING_KINDS:
        for num_arms in NUM_ARMS:
            for spending in SPENDINGS:
                setting = Setting(num_arms, 16, kind)
                _say(f"growing: {setting}, {spending}")
                through_decide = num_dropping if kind == "equal" and (spending, num_arms) in DROPPING else 0
                found = simulate_looks_of(setting, spending, num_sweeps, through_decide, 1000 + len(rows))
                rows.append(_row(setting) | {"spending": spending} | vars(found))
    return rows


def _confirmed(num_sweeps: int) -> list[Row]:
    rows = []
    for kind in GROWING_KINDS:
        for num_arms in NUM_ARMS:
            for num_fresh in NUM_FRESH:
                setting = Setting(num_arms, num_fresh, kind)
                wrong, confirmed = simulate_confirmation(setting, num_fresh, num_sweeps, 2000 + len(rows))
                rows.append(_row(setting) | {"wrong": wrong, "confirmed_arms": confirmed})
    return rows


def _variances(num_sweeps: int) -> list[Row]:
    rows = []
    for seed, setting in enumerate(VARIANCE_SETTINGS):
        _say(f"variances: {setting}")
        rows.append(_row(setting) | {"rejected": check_variances(setting, num_sweeps, 3000 + seed)})
    return rows


def _row(setting: Setting) -> Row:
    return {"kind": setting.kind, "arms": setting.num_arms, "seeds": setting.num_seeds}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="statistics_simulation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sweeps", type=int, default=20_000, help="sweeps of a setting (default: %(default)s)")
    parser.add_argument("--dropping", type=int, default=2_000, help="sweeps whose arms drop out (default: %(default)s)")
    folder = ROOT / "results" / "studies" / "statistics"
    parser.add_argument("--results", type=Path, default=folder, help="folder (default: %(default)s)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
