"""Forests across groups: how much more an arm does in another group than in the first, and what it does over all."""

from __future__ import annotations

from orchestrator.reports.figures.forest import Forest, ForestRow
from orchestrator.reports.interactions import Interactions
from orchestrator.reports.rendering.interaction_text import combined_texts, interval_text
from orchestrator.trials.trial import Role
from specvit.messages import one_line


def changes_forest(found: Interactions, group: str) -> Forest | None:
    """Return the differences of differences of a group to the first; None where no arm has one.

    Args:
        found: What was found across groups.
        group: One of ``found.others``.
    """
    rows = [
        ForestRow(one_line(row.arm), each.mean, each.low, each.high, interval_text(each, found.metric))
        for row in found.rows
        if row.role is Role.ARM and (each := row.changes.get(group)) is not None and each.mean is not None
    ]
    what = "difference of differences"
    return Forest(found.metric, tuple(rows), None, f"as in {one_line(found.first)}", what) if rows else None


def combined_forest(found: Interactions) -> Forest | None:
    """Return the effects of arms over all groups, each with an interval of its own; None where there is none."""
    rows = [
        ForestRow(one_line(row.arm), each.estimate, each.low, each.high, combined_texts(found, row)[0])
        for row in found.rows
        if (each := row.combined) is not None
    ]
    return Forest(found.metric, tuple(rows), None, "no effect", "effect over all groups") if rows else None
