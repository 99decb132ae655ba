"""Measures how noisy a short trial is, and what a sound verdict costs: ``make noise``.

What stands in the results is not done again, so the same command goes on where it was ended, and more seeds or settings
are added to what there is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.ledger.provenance import find_commit
from specvit.errors import SpecsweepError

from .arms import ARMS, Task, tasks
from .probe_noise import ProbeTask, is_measurable
from .records import PROBE_NOISE, RUNS, Run, drop_half_line, read_lines, read_runs
from .report import write_report
from .settings import FIRST_SEED, SHIPPED, Setting, read_settings
from .workers import run_all, say

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench as the command line says; return the exit code, 2 for a mistake in it."""
    options = _parser().parse_args(arguments)
    try:
        settings = read_settings(options.file)
    except SpecsweepError as error:
        say(str(error))
        return 2
    if options.list:
        for setting in settings.values():
            print(f"{setting.name}  {setting.digest}  {setting.why}")
        return 0
    if unknown := [name for name in options.settings or () if name not in settings]:
        say(f"--settings must be among {', '.join(settings)}, not {', '.join(unknown)}")
        return 2
    folder: Path = options.results
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            if not options.report:
                chosen = [settings[name] for name in options.settings or settings]
                _measure(chosen, folder, options)
            write_report(settings, folder)
    except Timeout:
        say(f"{folder}: another bench writes to it")
        return 2
    say(f"{folder / 'README.md'} says what was found")
    return 0


def work_left(
    settings: Sequence[Setting],
    runs: Sequence[Run],
    probed: set[str],
    *,
    num_seeds: int,
    wanted: Sequence[str] = ARMS,
) -> list[Task | ProbeTask]:
    """List what is left to do: seed by seed over all settings, so that an early end leaves them comparable.

    Args:
        settings: What is measured.
        runs: What is recorded.
        probed: Digests of settings whose probe noise is recorded.
        num_seeds: Seeds wanted.
        wanted: Arms wanted.
    """
    done = {run.key for run in runs}
    left: list[Task | ProbeTask] = []
    for seed in range(FIRST_SEED, FIRST_SEED + num_seeds):
        for setting in settings:
            of_seed = {arm for digest, arm, s in done if (digest, s) == (setting.digest, seed)}
            left += tasks(setting, seed, done=of_seed, wanted=wanted)
            if seed == FIRST_SEED and setting.digest not in probed and is_measurable(setting):
                left.append(ProbeTask(setting))
    return left


def _measure(settings: Sequence[Setting], folder: Path, options: argparse.Namespace) -> None:
    for name in (RUNS, PROBE_NOISE):
        if drop_half_line(folder / name):
            say(f"{folder / name}: dropped half a line at its end, left by a run that was killed")
    runs = read_runs(folder / RUNS)
    probed = {line["digest"] for line in read_lines(folder / PROBE_NOISE)}
    left = work_left(settings, runs, probed, num_seeds=options.seeds, wanted=options.arms)
    if left:
        say(f"{len(runs)} runs are done, {len(left)} tasks are left, for {options.workers} workers")
        commit, is_dirty = find_commit(ROOT)
        commit = (commit or "")[:10] + ("+" if is_dirty else "")
        run_all(left, folder, workers=options.workers, commit=commit, known=runs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="noise_bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="settings to measure (default: all of the file)")
    parser.add_argument("--arms", nargs="+", metavar="ARM", choices=ARMS, default=ARMS, help="arms (default: all)")
    parser.add_argument("--file", type=Path, default=SHIPPED, help="file of settings (default: %(default)s)")
    parser.add_argument("--seeds", type=_positive, default=8, help=f"seeds from {FIRST_SEED} on (default: %(default)s)")
    parser.add_argument("--workers", type=_positive, default=_num_cores(), help="processes (default: the cores)")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "results" / "studies" / "noise", help="folder (default: %(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="list the settings with their digests, and end")
    parser.add_argument("--report", action="store_true", help="write the report of what is recorded, and end")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    raise SystemExit(main())
