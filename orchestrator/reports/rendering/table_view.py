"""Which metrics and arms of a table are shown, and in which order; whatever is shown, all arms are compared.

Intervals, verdicts and the sentences above a table are those of the whole family of arms: to choose what is shown
after the results are known is no way to a narrower interval. The notes say how many are shown of how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.rendering.arm_names import abbreviate, factor
from orchestrator.reports.rendering.formatting import describe
from orchestrator.trials.trial import Role
from specvit.errors import SpecsweepError
from specvit.messages import did_you_mean
from specvit.probes import METRICS

ARM_ORDERS = ("arm", "parameters", "difference")
"""What rows can be sorted by besides a metric."""


@dataclass(frozen=True)
class TableView:
    """What of a sweep's tables is shown.

    Attributes:
        metrics: Names of the metrics, by commas, in the order of their columns; empty = those of the tables.
        arms: Arms as their rows are called, or globs, by commas; the baseline stays. Empty = all rows.
        sort: A metric or one of ``ARM_ORDERS``; empty = as in the sweep.
    """

    metrics: str = ""
    arms: str = ""
    sort: str = ""


def apply_view(tables: Mapping[str, AblationTable], view: TableView) -> dict[str, AblationTable]:
    """Return the tables with what is to be shown of them; what is found of the arms does not change.

    Args:
        tables: Group to its table, from ``build_tables``.
        view: What is to be shown.

    Raises:
        SpecsweepError: If no table has a metric, or no group an arm, that the view names.
    """
    if view == TableView():
        return dict(tables)
    known = tuple(dict.fromkeys(name for table in tables.values() for name in table.metrics))
    metrics = _checked(_split(view.metrics), known, option="--metrics", what="metric") or None
    arms = tuple(dict.fromkeys(row.arm for table in tables.values() for row in table.every_row))
    shown = set(_matching(view.arms, arms)) if view.arms else None
    if view.sort:
        _checked([view.sort], (*known, *ARM_ORDERS), option="--sort", what="order")
    return {group: _applied(table, metrics, shown, view.sort) for group, table in tables.items()}


def view_notes(table: AblationTable) -> list[str]:
    """Return how many of the arms that were compared are shown, and how they are sorted, where that is not all."""
    compared, shown = (sum(row.role is Role.ARM for row in rows) for rows in (table.every_row, table.rows))
    notes = []
    if shown < compared:
        notes.append(f"{compared} arms compared, {shown} shown: intervals and verdicts are those of all {compared}.")
    if table.order:
        notes.append(f"Rows are sorted by {table.order}.")
    return notes


def _applied(
    table: AblationTable, metrics: Sequence[str] | None, shown: set[str] | None, sort: str
) -> AblationTable:
    rows = table.every_row
    if shown is not None:
        rows = tuple(row for row in rows if row.role is Role.BASELINE or row.arm in shown)
    order = ""
    if sort:
        key, order = _order(sort, table.primary)
        rows = tuple(sorted(rows, key=lambda row: (row.role.rank, *key(row))))
    return replace(
        table,
        metrics=table.metrics if metrics is None else tuple(name for name in metrics if name in table.metrics),
        rows=rows,
        family=table.every_row,
        order=order,
    )


def _order(sort: str, primary: str) -> tuple[Callable[[ArmRow], tuple[float, str]], str]:
    """Return a key of rows of one role, and its name, human-readable; rows without a number come last."""
    if sort == "arm":
        return lambda row: (0.0, row.arm), "arm"
    if sort == "parameters":
        return lambda row: (row.extra_parameters_percent, ""), "extra parameters, fewest first"
    if sort == "difference":
        return (
            lambda row: (_last(_difference(row, primary), primary), ""),
            f"difference to the baseline in {describe(primary).title}, best first",
        )
    first = "best" if sort in METRICS else "highest"
    return lambda row: (_last(row.metrics[sort].mean, sort), ""), f"{describe(sort).title}, {first} first"


def _difference(row: ArmRow, name: str) -> float | None:
    difference = row.metrics[name].difference if name in row.metrics else None
    return None if difference is None else difference.mean


def _last(value: float | None, name: str) -> float:
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if name not in METRICS or METRICS[name].higher_is_better else value


def _split(text: str) -> list[str]:
    return [part for part in map(str.strip, text.split(",")) if part]


def _checked(names: Sequence[str], known: Sequence[str], *, option: str, what: str) -> tuple[str, ...]:
    """Return names, each once.

    Raises:
        SpecsweepError: If one of them is not known.
    """
    for name in names:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise SpecsweepError(f"{option}: no {what} {name!r}{did_you_mean(name, known)}; there are {listed}")
    return tuple(dict.fromkeys(names))


def _matching(text: str, arms: Sequence[str]) -> list[str]:
    """Return the arms that a list of names and globs means; a comma may belong to a name.

    Raises:
        SpecsweepError: If a part of it means none.
    """
    parts, found = text.split(","), []
    while parts:
        if not parts[0].strip():
            parts = parts[1:]
            continue
        for length in range(len(parts), 0, -1):
            pattern = ",".join(parts[:length]).strip()
            matches = [arm for arm in arms if pattern in (arm, factor(arm), abbreviate(arm))]
            if matches := matches or [arm for arm in arms if fnmatchcase(arm, pattern)]:
                break
        else:
            raise SpecsweepError(
                f"--arms: no arm {parts[0].strip()!r}{did_you_mean(parts[0].strip(), arms)}; arms are called as in the "
                "table, and * stands for anything"
            )
        found += matches
        parts = parts[length:]
    return found
