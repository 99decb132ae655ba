"""The text of a table's cells, and the notes below it: what is said, whatever it is written on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.formatting import decimals, describe
from orchestrator.reports.mixed import MARK, mixture_note
from orchestrator.reports.unlearnt import learning_note
from orchestrator.statistics.paired import EXACT_UP_TO, NUM_DRAWS
from orchestrator.trials.records import WITHOUT_WEIGHTS
from orchestrator.trials.trial import Role
from specvit.messages import one_line

NOTHING = "-"
"""Text of a cell that has nothing to show."""


def failures_of(table: AblationTable) -> list[tuple[str, str]]:
    """Return label and error, each in one line, of every failed trial."""
    return [(one_line(label), one_line(error)) for label, error in table.failures]


def mean_text(row: ArmRow, name: str) -> str:
    """Return mean ± sample standard deviation, the mean alone with one seed."""
    cell, digits = row.metrics[name], decimals(name)
    if not cell.n:
        return NOTHING
    if cell.mean is None or not math.isfinite(cell.mean):
        return "not finite"
    return f"{cell.mean:z.{digits}f}" + ("" if cell.sd is None else f" ± {cell.sd:.{digits}f}")


def difference_text(row: ArmRow, name: str) -> str:
    """Return the difference to the baseline with its interval, marked if it is not of the arm alone; empty if none."""
    cell, digits = row.metrics[name], decimals(name)
    difference = cell.difference
    if difference is None or difference.mean is None or not math.isfinite(difference.mean):
        return ""
    text = f"{difference.mean:+z.{digits}f}"
    if difference.low is not None:
        text += f" [{difference.low:+z.{digits}f}, {difference.high:+z.{digits}f}]"
    if difference.n != cell.n:  # fewer than the mean is over, if the baseline lacks a seed that the arm has
        text += f" n={difference.n}"
    return f"{text} {MARK}" if row.mixed else text


def excludes_zero(row: ArmRow, name: str) -> bool:
    """Return whether there is an interval that leaves 0 out; one without width, of equal differences, says nothing."""
    difference = row.metrics[name].difference
    if difference is None or difference.low is None or difference.high is None:
        return False
    return difference.low < difference.high and (difference.low > 0 or difference.high < 0)


def role_text(row: ArmRow) -> str:
    """Return what a row is, if it is not an arm like others."""
    return "" if row.role is Role.ARM else f" ({row.role})"


def parameters_text(row: ArmRow) -> str:
    """Return the extra parameters in percent; nothing for an arm without a backbone."""
    return f"{row.extra_parameters_percent:+z.1f}%" if row.num_parameters else NOTHING


def states_texts(row: ArmRow) -> list[str]:
    """Return how many of the seeds are done, how many of these have not learnt, and what became of the others.

    For example ``2/3``, ``1 not learnt``, ``1 pruned``.
    """
    others = (
        (row.not_learnt, "not learnt"),
        *((row.pruned, "pruned"), (row.failed, "failed")),
        *((row.unfinished, "to do"), (row.left_out, "left out")),
    )
    return [f"{row.done}/{row.seeds}", *(f"{count} {word}" for count, word in others if count)]


def seconds_text(row: ArmRow) -> str:
    """Return the mean wall time of the trials that are done."""
    return _number(row.seconds, 1)


COST_TITLES = ("training (s)", "images/s", "peak memory (GiB)")
"""Headings of ``cost_texts``."""


def cost_texts(row: ArmRow) -> list[str]:
    """Return what the training took: seconds, images per second, peak memory, which is marked where it is a GPU's."""
    memory = _number(row.peak_memory_gib, 2)
    if row.peak_gpu_memory_gib is not None:
        memory = f"{_number(row.peak_gpu_memory_gib, 2)} GPU"
    return [_number(row.training_s, 1), _number(row.training_images_per_s, 0), memory]


def has_costs(table: AblationTable) -> bool:
    """Return whether it is known of some arm what its training took: versions before did not record it."""
    return any(row.training_s is not None for row in table.rows)


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def notes_of(table: AblationTable, *, place: str) -> list[str]:
    """Return what a table shows and what it cannot show.

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
    if (learning := learning_note(table.unlearnt)) is not None:
        notes.append(learning)
    if (mixture := mixture_note(row.mixed for row in table.rows)) is not None:
        notes.append(mixture)
    num_trials = sum(row.seeds for row in table.rows)
    if any(row.pruned for row in table.rows):
        notes.append(
            "Means of arms with pruned seeds are over the surviving seeds only, which were spared for doing "
            "well: they flatter the arm."
        )
    if any(row.failed for row in table.rows):
        notes.append("Means of arms with failed seeds are over the seeds that did not fail.")
    if unfinished := sum(row.unfinished for row in table.rows):
        notes.append(f"{unfinished} of {num_trials} trials are still to do.")
    if left_out := sum(row.left_out for row in table.rows):
        notes.append(_left_out_note(left_out, num_trials, table.left_out))
    if table.added_later:
        names = ", ".join(describe(name).title for name in table.added_later)
        notes.append(f"Added later, evaluated on kept weights: {names}.")
    if has_costs(table):
        notes.append(
            "Training: wall time, images per second and most memory of its steps alone, without probes, rungs and the "
            "saving of states. Memory is that of the process, libraries included; where marked, what torch allocated "
            "on the GPU."
        )
    notes.append("Short runs are not known to predict how the arms would rank after full-length ones.")
    return notes


def _left_out_note(count: int, num_trials: int, reasons: Sequence[str]) -> str:
    """Return which trials are left out and why: for lack of room, or since probes had nothing to look at."""
    bounds = [one_line(reason) for reason in reasons if reason != WITHOUT_WEIGHTS]
    whole = f"{count} of {num_trials} trials are left out"
    if WITHOUT_WEIGHTS in reasons and not bounds:
        return f"{whole}: of each, {WITHOUT_WEIGHTS}."
    text = f"{whole}, the last seeds first, for lack of room in {' and '.join(bounds) or 'the budget'}"
    return f"{text}; or since of each, {WITHOUT_WEIGHTS}." if WITHOUT_WEIGHTS in reasons else f"{text}."


def _resolution_note(table: AblationTable) -> str:
    differences = [cell.difference for row in table.rows for cell in row.metrics.values()]
    pairs = max((difference.n for difference in differences if difference is not None), default=0)
    n = pairs or max(row.seeds for row in table.rows)
    seeds = "1 seed" if n == 1 else f"{n} seeds"
    note = f"With {seeds} the two-sided sign-flip p cannot be below 2/2^{n} = {2 / 2**n:.3g}"
    if n > EXACT_UP_TO:
        note += f"; it is estimated from {NUM_DRAWS:,} random flips"
    return note + "."
