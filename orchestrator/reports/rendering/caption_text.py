"""The caption of a table in a paper or on a page: what it shows, of how many seeds, by what method."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.reports.ablation_table import AblationTable, ArmRow
from orchestrator.reports.mixed import mixture_note
from orchestrator.reports.rendering.cell_text import FALSE_DISCOVERIES, NOTEWORTHY, control_note, external_note
from orchestrator.reports.rendering.formatting import describe, format_size
from orchestrator.reports.rendering.table_view import view_notes
from orchestrator.reports.skipped_images import skipped_note
from orchestrator.reports.unlearnt import learning_note
from orchestrator.trials.trial import Role
from specvit.messages import one_line

_METHODS = {
    ("blocked", "pooled"): "seeds are blocks, one residual variance pooled over the arms",
    ("unblocked", "pooled"): "means of all seeds, not paired, one residual variance pooled over the arms",
    ("blocked", "moderated"): "paired by seed, each arm's own variance, moderated after Smyth",
}
"""How a table compares, by what the sweep's file declares."""


def caption_of(table: AblationTable, question: str = "", group: str = "") -> list[str]:
    """Return the caption of a table, in sentences of plain text.

    Args:
        table: The table.
        question: What the sweep asks; empty = it is not said.
        group: What the table is of; empty = all of the sweep.
    """
    asked = one_line(question)
    sentences = [asked if asked.endswith((".", "?", "!")) else f"{asked}."] if asked else []
    sentences += [f"Group: {one_line(group)}."] if group else []
    sentences.append(f"Mean ± sample standard deviation over {_seeds(table.every_row)}{_method(table)}.")
    sentences += [*view_notes(table), *_claims(table), *_ends(table)]
    mixture = mixture_note(row.mixed for row in table.rows)
    learning, skipped = learning_note(table.unlearnt), skipped_note(table.skipped)
    notes = (control_note(table), learning, skipped, mixture, external_note(table))
    return [*sentences, *(note for note in notes if note is not None)]


def _seeds(rows: Iterable[ArmRow]) -> str:
    """Return over how many seeds the means of the trained arms are: ``4 seeds``, ``2 to 4 seeds``."""
    rows = list(rows)
    counts = {row.done for row in rows if row.role.is_ablated} or {row.done for row in rows} or {0}
    low, high = min(counts), max(counts)
    return f"{low if low == high else f'{low} to {high}'} seed{'s' * (high != 1)}"


def _method(table: AblationTable) -> str:
    """Return how arms are compared; empty where none is."""
    if not table.comparisons:
        return ""
    num_arms = sum(row.role is Role.ARM for row in table.every_row)
    how = _METHODS[table.declared.model, table.declared.variance]
    text = (
        f"; difference to the baseline with its 95% interval, simultaneous over {num_arms} arm{'s' * (num_arms != 1)} "
        f"(Dunnett; {how})"
    )
    if table.growth is not None:
        text += f", in {describe(table.primary).title} for all declared looks of growing seeds together"
    return text


def _claims(table: AblationTable) -> list[str]:
    """Return which metric is primary, what is too small to matter in it, and what could not have been seen."""
    comparison = table.comparisons.get(table.primary)
    if comparison is None:
        return []
    title = describe(table.primary).title
    texts = [f"{title} is primary (bold: better or worse)"]
    if table.smallest_effect is not None:
        texts.append(f"differences under {table.smallest_effect:g} are equivalent")
    if comparison.detectable is not None and table.growth is None:
        seen = format_size(table.primary, comparison.detectable)
        texts.append(f"differences under {seen} could not have been seen")
    others = [name for name in table.metrics if name != table.primary and name in table.comparisons]
    marked = f" ({NOTEWORTHY}: p below {FALSE_DISCOVERIES:g} after Benjamini and Hochberg)"
    return [f"{'; '.join(texts)}.", *([f"Other metrics are exploratory{marked}."] if others else [])]


def _ends(table: AblationTable) -> list[str]:
    """Return what did not go as planned."""
    rows = table.every_row
    counts = {
        "pruned": sum(row.pruned for row in rows),
        "failed": sum(row.failed for row in rows),
        "to do": sum(row.unfinished for row in rows),
        "left out": sum(row.left_out for row in rows),
    }
    texts = [f"{count} {what}" for what, count in counts.items() if count]
    if not texts:
        return []
    pruned = "; pruned arms have no interval, and their means flatter them" if counts["pruned"] else ""
    return [f"Of {sum(row.seeds for row in rows)} trials {', '.join(texts)}{pruned}."]
