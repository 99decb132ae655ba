"""The text of a table's cells, and the notes below it: what is said, whatever it is written on."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from orchestrator.reports.formatting import decimals
from orchestrator.reports.statistics import EXACT_UP_TO, NUM_DRAWS
from specvit.messages import one_line

Row = dict[str, Any]
"""A row of a table by column, None where a cell is empty."""

NOTHING = "-"
"""Text of a cell that has nothing to show."""


def metrics_of(table: pd.DataFrame) -> list[str]:
    """Return the names of the metrics that a table shows, in the order of their columns."""
    return [str(name).removesuffix("_diff_p") for name in table.columns if str(name).endswith("_diff_p")]


def rows_of(table: pd.DataFrame) -> list[Row]:
    """Return the rows of a table from ``orchestrator.reports.ablation_table``."""
    names = [str(name) for name in table.columns]
    columns = [[_plain(value) for value in table[name].tolist()] for name in table.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """Return a cell's value, None where it is empty."""
    return None if value is pd.NA or value is None or value != value else value


def failures_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return label and error, each in one line, of every failed trial."""
    return [(one_line(label), one_line(error)) for label, error in table.attrs["failures"]]


def mean_text(row: Row, name: str) -> str:
    """Return mean ± sample standard deviation, the mean alone with one seed."""
    if not row[f"{name}_n"]:
        return NOTHING
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    if mean is None or not math.isfinite(mean):
        return "not finite"
    digits = decimals(name)
    return f"{mean:z.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")


def difference_text(row: Row, name: str) -> str:
    """Return the difference to the baseline with its interval; empty where there is none."""
    mean, low, high = (row[f"{name}_diff{end}"] for end in ("", "_low", "_high"))
    if mean is None or not math.isfinite(mean):
        return ""
    digits = decimals(name)
    text = f"{mean:+z.{digits}f}"
    if low is not None:
        text += f" [{low:+z.{digits}f}, {high:+z.{digits}f}]"
    num_pairs = row[f"{name}_diff_n"]
    # Fewer than the mean is over, if the baseline lacks a seed that the arm has.
    return text if num_pairs == row[f"{name}_n"] else f"{text} n={num_pairs}"


def excludes_zero(row: Row, name: str) -> bool:
    """Return whether there is an interval that leaves 0 out."""
    low, high = row[f"{name}_diff_low"], row[f"{name}_diff_high"]
    return low is not None and (low > 0 or high < 0)


def role_text(row: Row) -> str:
    """Return what a row is, if it is not an arm like others."""
    return "" if row["role"] == "arm" else f" ({row['role']})"


def parameters_text(row: Row) -> str:
    """Return the extra parameters in percent; nothing for an arm without a backbone."""
    return f"{row['extra_parameters_percent']:+z.1f}%" if row["num_parameters"] else NOTHING


def states_texts(row: Row) -> list[str]:
    """Return how many of the seeds are done, and what became of the others, e.g. ``2/3``, ``1 pruned``."""
    others = (
        *((row["pruned"], "pruned"), (row["failed"], "failed")),
        *((row["unfinished"], "to do"), (row["left_out"], "left out")),
    )
    return [f"{row['done']}/{row['seeds']}", *(f"{count} {word}" for count, word in others if count)]


def seconds_text(row: Row) -> str:
    """Return the mean wall time of the trials that are done."""
    return NOTHING if row["seconds"] is None else f"{row['seconds']:.1f}"


def notes_of(table: pd.DataFrame, *, place: str) -> list[str]:
    """Say what a table shows and what it cannot show.

    Args:
        table: The table.
        place: Where the differences stand as seen from the means, e.g. ``below it``.

    Returns:
        The notes that stand under it.
    """
    notes = [
        f"Mean ± sample standard deviation over the seeds that are done; {place} the difference to the "
        "baseline, paired by seed, with its 95% Student t interval (bold: it excludes 0).",
        _resolution_note(table),
    ]
    if table["pruned"].sum():
        notes.append(
            "Means of arms with pruned seeds are over the surviving seeds only, which were spared for doing "
            "well: they flatter the arm."
        )
    if table["failed"].sum():
        notes.append("Means of arms with failed seeds are over the seeds that did not fail.")
    if table["unfinished"].sum():
        notes.append(f"{table['unfinished'].sum()} of {table['seeds'].sum()} trials are still to do.")
    if table["left_out"].sum():
        bounds = " and ".join(map(one_line, table.attrs.get("left_out", ())))
        notes.append(
            f"{table['left_out'].sum()} of {table['seeds'].sum()} trials are left out, the last seeds first, for "
            f"lack of room in {bounds or 'the budget'}."
        )
    notes.append("Short runs are not known to predict how the arms would rank after full-length ones.")
    return notes


def _resolution_note(table: pd.DataFrame) -> str:
    counts = [table[f"{name}_diff_n"].max() for name in metrics_of(table)]
    compared = [int(count) for count in counts if not pd.isna(count) and count > 0]
    n = max(compared) if compared else int(table["seeds"].max())
    seeds = "1 seed" if n == 1 else f"{n} seeds"
    note = f"With {seeds} the two-sided sign-flip p cannot be below 2/2^{n} = {2 / 2**n:.3g}"
    if n > EXACT_UP_TO:
        note += f"; it is estimated from {NUM_DRAWS:,} random flips"
    return note + "."
