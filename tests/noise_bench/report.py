"""The report of a bench: ``README.md`` to read and ``table.csv`` to reckon with, made of the recorded runs alone."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from specvit.config import PERTURBATION
from specvit.files.atomic import write_atomically
from specvit.probes import METRICS

from .analysis import NUM_ARMS, POWER, WANTED, Cost, Effect, MetricNoise, SettingNoise, analyse
from .arms import CONTROLS, REAL, TWINS
from .detection import LEAST_SEEDS, NUM_DRAWS
from .records import PROBE_NOISE, RUNS, Run, read_lines, read_runs
from .settings import FIRST_SEED, Setting

NOTHING = "-"

INTRODUCTION = f"""# How noisy a short trial is, and what a verdict costs

Made by `make noise` from `{RUNS}` and `{PROBE_NOISE}`; `table.csv` has all numbers. Seeds count from {FIRST_SEED}; no
shipped sweep and no study uses these. Arms of a seed share initial weights, order of the images and augmentation. Each
seed trains

* `none`, the baseline, and `{REAL}`, a real arm;
* `repeat`, the baseline again with all weights of the backbone times 1 + {PERTURBATION:g} N(0, 1) at step 0: an A/A
  arm, whose difference is noise by construction; and the same of the real arm. A run and its repeat are twins;
* controls, expected to make features worse:
{chr(10).join(f"  - `{arm}`: {what}" for arm, what in CONTROLS.items())}

A *verdict* finds a true difference of {WANTED:g} points in one of {NUM_ARMS - 1} arms against one baseline with
{POWER:.0%} power at a family-wise error of 5%, in the two-way model arm + seed with pooled residual variance: Dunnett's
critical value at ({NUM_ARMS} - 1)(n - 1) degrees of freedom, the residual standard deviation that of the paired
difference over sqrt 2. Its cost is seeds x {NUM_ARMS} arms x core-seconds of a trial. Intervals are 95% intervals; that
of a cost follows from that of the standard deviation (chi-squared) alone.
"""

COST_NOTES = """
SD within arm: over seeds, baseline and real arm pooled. SD of difference: of the real arm's paired difference. r by
seed: correlation of baseline and real arm. Exact seeds and hours: interpolated between whole numbers of seeds.
"""

EFFECT_NOTES = f"""
Found: how often the design of a verdict with that number of seeds would call the arm different: over {NUM_DRAWS:,}
draws of seeds with replacement where there are {LEAST_SEEDS} seeds or more (residuals pooled over all arms but the
repeats, on their degrees of freedom), else, with a `*`, by the normal model, as if the mean difference were the true
one. Draws keep the mean that was measured: with few seeds the A/A arm may stand off 0 by chance.
"""

CHAOS_NOTES = """
Distance of the backbones' weights, ||w - w'|| / ||w||, median over twins (largest at the end). RMS: root mean square of
twin minus run, in points. Repeat r: correlation of the real arm's differences in first runs with those in repeats; what
does not repeat is no effect of the arm, nor of its seed.
"""

PROBE_NOTES = """
Standard deviations in points, of one trained backbone: over disjoint draws of training images, over disjoint blocks of
validation images, of what neither explains, and over seeds of the probe. Arms and seeds of a sweep share their images,
so the first two are no part of its noise.
"""


def write_report(settings: Mapping[str, Setting], folder: Path) -> list[SettingNoise]:
    """Analyse what is recorded of settings and write the report.

    Args:
        settings: All settings of the file, by name; those without a run are left out.
        folder: Where the records are and the report goes.

    Returns:
        What was found.
    """
    runs, probe_noise = read_runs(folder / RUNS), {line["digest"]: line for line in read_lines(folder / PROBE_NOISE)}
    of_digest: dict[str, list[Run]] = {}
    for run in runs:
        of_digest.setdefault(run.digest, []).append(run)
    found = [
        analyse(setting.name, setting.why, of_digest[setting.digest], probe_noise.get(setting.digest))
        for setting in settings.values()
        if setting.digest in of_digest
    ]
    known = {setting.digest for setting in settings.values()}
    others = sorted({run.setting for run in runs if run.digest not in known})
    write_atomically(folder / "README.md", render(found, runs, others))
    write_atomically(folder / "table.csv", render_csv(found))
    return found


def render(settings: Sequence[SettingNoise], runs: Sequence[Run], others: Sequence[str]) -> str:
    """Render the report as Markdown.

    Args:
        settings: What was found.
        runs: All runs, for the commits.
        others: Settings of earlier days, whose runs are not counted.
    """
    parts = [INTRODUCTION, "## Settings\n", _bullets(f"`{s.name}`: {s.why} {s.num_runs} runs." for s in settings)]
    parts += ["\n## What a verdict costs\n", _cost_table(settings), COST_NOTES]
    parts += ["\n## Whether it finds what is there\n", _effect_table(settings), EFFECT_NOTES]
    parts += ["\n## Chaos\n", _distance_table(settings), _twin_table(settings), CHAOS_NOTES]
    if any(metric.probes for setting in settings for metric in setting.metrics):
        parts += ["\n## The probes' own noise\n", _probe_table(settings), PROBE_NOTES]
    failed = [f"`{s.name}`, {arm}, seed {seed}: {text}" for s in settings for arm, seed, text in s.errors]
    if failed:
        parts += ["\n## Failed runs\n", _bullets(failed)]
    parts.append(f"\nCommits: {', '.join(dict.fromkeys(run.commit or 'unknown' for run in runs)) or NOTHING}.\n")
    if others:
        parts.append(f"\nNot counted, since their settings are no longer those of the file: {', '.join(others)}.\n")
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def render_csv(settings: Sequence[SettingNoise]) -> str:
    """Render a row a setting and metric, with everything that was found."""
    rows = [_row(setting, metric) for setting in settings for metric in setting.metrics]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(setting: SettingNoise, metric: MetricNoise) -> dict[str, Any]:
    row: dict[str, Any] = {"setting": setting.name, "metric": metric.metric}
    plain = ("num_pairs", "baseline_mean", "sd_seeds", "sd_difference", "sd_low", "sd_high", "seed_correlation")
    row |= {name: getattr(metric, name) for name in (*plain, "twin_rms", "repeat_correlation")}
    row |= {"training_core_s": setting.training_core_s, "probes_core_s": setting.probes_core_s}
    for suffix, cost in (("", metric.cost), ("_low", metric.cost_low), ("_high", metric.cost_high)):
        for name in ("seeds", "core_hours", "exact_seeds", "exact_core_hours"):
            row[name + suffix] = None if cost is None else getattr(cost, name)
    end = max(setting.distances, default=None)
    row["twin_distance_median"], row["twin_distance_largest"] = setting.distances[end] if end else (None, None)
    for arm, effect in metric.effects.items():
        prefix, difference = arm.replace(" ", "_"), effect.difference
        row |= {f"{prefix}:{name}": getattr(difference, name) for name in ("n", "mean", "low", "high")}
        row |= {f"{prefix}:found": effect.detected, f"{prefix}:by": "seeds" if effect.is_resampled else "model"}
    parts = metric.probes
    for name in ("rows", "columns", "residual"):
        row[f"probe_sd_{name}"] = None if parts is None else getattr(parts, name)
    row["probe_sd_seeds"] = metric.sd_probe_seeds
    return row


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"* {line}\n" for line in lines)


def _number(value: float | None, digits: int = 2) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def _interval(low: float | None, high: float | None, digits: int = 2) -> str:
    return "" if low is None or high is None else f" [{_number(low, digits)}, {_number(high, digits)}]"


def _title(name: str) -> str:
    return METRICS[name].title if name in METRICS else name


def _cost_table(settings: Sequence[SettingNoise]) -> str:
    head = ["setting", "metric", "seeds measured", "mean of `none`", "SD within arm", "SD of difference", "r by seed"]
    head += ["core-s a trial", "seeds", "exact", "core-hours", "exact"]
    rows = []
    for setting in settings:
        seconds = NOTHING
        if setting.training_core_s is not None and setting.probes_core_s is not None:
            seconds = f"{setting.training_core_s:.0f} + {setting.probes_core_s:.0f}"
        for metric in setting.metrics:
            spread = _number(metric.sd_difference) + _interval(metric.sd_low, metric.sd_high)
            row = [setting.name, _title(metric.metric), str(metric.num_pairs), _number(metric.baseline_mean, 1)]
            row += [_number(metric.sd_seeds), spread, _number(metric.seed_correlation), seconds]
            rows.append([*row, *_cost_cells(metric.cost, metric.cost_low, metric.cost_high)])
    return _table(head, rows)


def _cost_cells(cost: Cost | None, low: Cost | None, high: Cost | None) -> list[str]:
    if cost is None or low is None or high is None:
        return [NOTHING] * 4
    ends = _interval(low.exact_core_hours, high.exact_core_hours)
    return [
        f"{cost.seeds:.0f}", _number(cost.exact_seeds), _number(cost.core_hours), _number(cost.exact_core_hours) + ends
    ]


def _effect_table(settings: Sequence[SettingNoise]) -> str:
    rows = [
        [setting.name, _title(metric.metric), f"`{arm}`", _effect_text(effect), _found_text(effect)]
        for setting in settings
        for metric in setting.metrics
        for arm, effect in metric.effects.items()
    ]
    return _table(["setting", "metric", "arm", "difference", "found"], rows)


def _effect_text(effect: Effect) -> str:
    difference = effect.difference
    return f"{_number(difference.mean)}{_interval(difference.low, difference.high)} (n = {difference.n})"


def _found_text(effect: Effect) -> str:
    if effect.detected is None:
        return NOTHING
    return f"{effect.detected:.1%}" + ("" if effect.is_resampled else "*")


def _distance_table(settings: Sequence[SettingNoise]) -> str:
    steps = sorted({step for setting in settings for step in setting.distances})
    rows = []
    for setting in settings:
        end = max(setting.distances, default=None)
        cells = [f"{setting.distances[step][0]:.1e}" if step in setting.distances else "" for step in steps]
        rows.append([setting.name, f"{setting.distances[end][1]:.1e}" if end else NOTHING, *cells])
    return _table(["setting", "largest at the end", *(f"step {step}" for step in steps)], rows)


def _twin_table(settings: Sequence[SettingNoise]) -> str:
    rows = [
        [setting.name, _title(metric.metric), _number(metric.twin_rms), _number(metric.repeat_correlation)]
        for setting in settings
        for metric in setting.metrics
    ]
    return _table(["setting", "metric", f"RMS of {len(TWINS)} twins a seed", "repeat r"], rows)


def _probe_table(settings: Sequence[SettingNoise]) -> str:
    rows = []
    for setting in settings:
        for metric in setting.metrics:
            if metric.probes is not None:
                parts = (metric.probes.rows, metric.probes.columns, metric.probes.residual, metric.sd_probe_seeds)
                rows.append([setting.name, _title(metric.metric), *map(_number, parts)])
    return _table(["setting", "metric", "training draw", "validation block", "residual", "probe seed"], rows)
