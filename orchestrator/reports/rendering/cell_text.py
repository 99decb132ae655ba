"""The text of a table's cells, and the notes below it: what is said, whatever it is written on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.mixed import MARK, mixture_note
from orchestrator.reports.rendering.formatting import decimals, describe, format_change, format_size
from orchestrator.reports.rendering.table_view import view_notes
from orchestrator.reports.skipped_images import skipped_note
from orchestrator.reports.unlearnt import learning_note
from orchestrator.statistics import Action, Verdict
from orchestrator.trials.records import DECIDED, WITHOUT_WEIGHTS
from orchestrator.trials.trial import Role
from specvit.messages import one_line

NOTHING = "-"
"""Text of a cell that has nothing to show."""

NOTEWORTHY = "†"
"""Marks exploratory differences whose adjusted p is below ``FALSE_DISCOVERIES``."""

FALSE_DISCOVERIES = 0.05
UNLIKE = 0.01
"""p of equal variances below which a note says that arms vary unlike each other."""


_METHODS = {
    ("blocked", "pooled"): "least squares on arm and seed, one residual variance; Dunnett",
    ("unblocked", "pooled"): "means of all seeds, which are not paired, one residual variance; Dunnett",
    ("blocked", "moderated"): "paired by seed, each arm's own variance, moderated after Smyth; Dunnett",
}
"""How a table compares, by what the sweep's file declares."""


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
    """Return the difference to the baseline with its interval and verdict, marked if it is not of the arm alone.

    Empty if there is none; of an arm that was pruned, which has no interval, that.
    """
    cell, digits = row.metrics[name], decimals(name)
    difference = cell.difference
    if row.is_no_op:
        return "no-op"
    if row.role is Role.ARM and row.pruned:
        return "pruned"
    if difference is None or difference.mean is None or not math.isfinite(difference.mean):
        return ""
    text = format_change(difference.mean, difference.low, difference.high, digits)
    if difference.n != cell.n:  # fewer than the mean is over, if the baseline lacks a seed that the arm has
        text += f" n={difference.n}"
    if difference.q_value is not None and difference.q_value < FALSE_DISCOVERIES:
        text += f" {NOTEWORTHY}"
    return f"{text} {MARK}" if row.mixed else text


def verdict_text(row: ArmRow, name: str) -> str:
    """Return the verdict on an arm, of the primary metric; empty of others, and where there is none."""
    difference = row.metrics[name].difference
    if difference is None or difference.verdict is None or difference.low is None:
        return ""
    return str(difference.verdict)


def is_decided(row: ArmRow, name: str) -> bool:
    """Return whether the verdict is that the arm is better or worse."""
    difference = row.metrics[name].difference
    return difference is not None and difference.verdict in (Verdict.BETTER, Verdict.WORSE)


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
        f"Mean ± sample standard deviation over the seeds that are done; {place} the difference to the baseline with "
        f"its 95% interval, simultaneous over the arms ({_METHODS[table.declared.model, table.declared.variance]}). "
        "Floors are outside of it.",
        *view_notes(table),
        *_statistics_notes(table),
        *(note for note in (control_note(table), _rounding_note(table)) if note is not None),
    ]
    if (external := external_note(table)) is not None:
        notes.append(external)
    if (learning := learning_note(table.unlearnt)) is not None:
        notes.append(learning)
    if (skipped := skipped_note(table.skipped)) is not None:
        notes.append(skipped)
    if (mixture := mixture_note(row.mixed for row in table.rows)) is not None:
        notes.append(mixture)
    num_trials = sum(row.seeds for row in table.every_row)
    if any(row.pruned for row in table.rows):
        notes.append(
            "Means of arms with pruned seeds are over the surviving seeds only, which were spared for doing "
            "well: they flatter the arm, which has no interval and no verdict."
        )
    if any(row.failed for row in table.rows):
        notes.append("Means of arms with failed seeds are over the seeds that did not fail.")
    if unfinished := sum(row.unfinished for row in table.every_row):
        notes.append(f"{unfinished} of {num_trials} trials are still to do.")
    if left_out := sum(row.left_out for row in table.every_row):
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


def external_note(table: AblationTable) -> str | None:
    """Return the sentence about rows of backbones from elsewhere; None if there are none."""
    if not any(row.role is Role.EXTERNAL for row in table.rows):
        return None
    return (
        "Rows marked (external) are backbones that were trained elsewhere. The same probes looked at them, with one "
        "seed; they are not paired with the baseline, and have no difference to it."
    )


def control_note(table: AblationTable) -> str | None:
    """Return the sentence about rows of controls; None if there are none."""
    if not any(row.role is Role.CONTROL for row in table.rows):
        return None
    return (
        "Rows marked (control) should not differ from the baseline. They are judged by the arms' variance and critical "
        "value, and take no part in either, so that they widen no interval of an arm."
    )


def _rounding_note(table: AblationTable) -> str | None:
    """Return what rounding alone is worth, which a repeat has measured; None without one."""
    worth = [
        f"{_title(name)} {sd:.2g} (arms: {math.sqrt(2) * found.sd:.2g})"
        for name, sd in table.rounding.items()
        if (found := table.comparisons.get(name)) is not None and found.sd is not None
    ]
    if not worth:
        return None
    return f"Standard deviation of a difference that rounding alone makes (repeat): {', '.join(worth)}."


def _left_out_note(count: int, num_trials: int, reasons: Sequence[str]) -> str:
    """Return which trials are left out and why: for lack of room, or since probes had nothing to look at."""
    bounds = [one_line(reason) for reason in reasons if reason not in (WITHOUT_WEIGHTS, DECIDED)]
    texts = [f"of some, {reason}" for reason in (WITHOUT_WEIGHTS, DECIDED) if reason in reasons]
    if bounds or not texts:
        texts = [f"the last seeds first, for lack of room in {' and '.join(bounds) or 'the budget'}", *texts]
    elif len(texts) == 1:
        texts = [texts[0].replace("some", "each", 1)]
    separator = ", " if bounds or not reasons else ": "
    return f"{count} of {num_trials} trials are left out{separator}{'; '.join(texts)}."


def _statistics_notes(table: AblationTable) -> list[str]:
    """Return which metric is primary, what could have been seen, what pairing is worth, and where arms vary unlike."""
    found = table.comparisons
    if not found:
        return []
    notes = []
    others = [name for name in table.metrics if name != table.primary and name in found]
    text = f"Primary: {_title(table.primary)} (bold: better or worse)"
    if table.smallest_effect is not None:
        text += f"; differences under {table.smallest_effect:g} are equivalent"
    if others:
        text += (
            f". Other metrics are exploratory, without a verdict; {NOTEWORTHY}: p below {FALSE_DISCOVERIES:g} after "
            "Benjamini and Hochberg over all of their cells"
        )
    notes.append(f"{text}.")
    notes += _growth_notes(table)
    seen = [
        f"{_title(name)} {format_size(name, each.detectable)}"
        for name, each in found.items()
        if each.detectable is not None and not (table.growth is not None and name == table.primary)
    ]
    if seen:
        notes.append(f"Could have been seen, with 80% probability: differences from {', '.join(seen)}.")
    worth = [
        f"{_title(name)} x{each.pairing.worth:.2f} (r = {each.pairing.correlation:.2f})"
        for name, each in found.items()
        if each.pairing is not None
    ]
    if worth:
        notes.append(f"What pairing by seed is worth in seeds: {', '.join(worth)}.")
    unlike = [_title(name) for name, each in found.items() if each.variances and each.variances.p_value < UNLIKE]
    if unlike:
        text = f"Arms vary unlike each other (Brown and Forsythe, p below {UNLIKE:g}) in {', '.join(unlike)}"
        if table.declared.variance == "pooled":
            text += "; a sweep that declares comparison: {variance: moderated} allows for it"
        notes.append(f"{text}.")
    if any(row.is_no_op for row in table.rows):
        notes.append("no-op: equal to the baseline in every metric and seed, to the last bit; it changes nothing.")
    return notes


def _growth_notes(table: AblationTable) -> list[str]:
    """Return how far the looks of a sweep have come whose seeds grow, and what became of the arms."""
    growth = table.growth
    if growth is None:
        return []
    actions = Counter(decision.action for decision in growth.decisions.values())
    texts = [f"{count} {action}" for action, count in actions.items() if action is not Action.CONTINUE]
    reached = f"the look at {growth.look} seeds is reached" if growth.look else "no look is reached yet"
    going = f"; {len(growth.open_arms)} arms go on, to {growth.next_look} seeds" if growth.next_look is not None else ""
    ended = f": {', '.join(texts)}" if texts else ""
    missed = "turn out better" if growth.seeks_better else "be decided"
    return [
        f"Seeds grow: {reached}{ended}{going}. Intervals of {_title(table.primary)} hold for all declared looks "
        f"together; an arm that is futile was not likely to {missed} by the last one."
    ]


def _title(name: str) -> str:
    return describe(name).title
