"""What is found across groups, as text: sentences, cells, notes, and the same as values for CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from typing import Any

from orchestrator.reports.interactions import ArmAcross, Change, Interactions
from orchestrator.reports.rendering.formatting import decimals, describe, format_change, format_size
from orchestrator.statistics import LEAST_SEEDS, CombinedEffect
from orchestrator.trials.trial import Role
from specvit.messages import one_line

CSV_NAME = "interactions.csv"
_AXIS = re.compile(r"(?:^|, )([a-z_0-9]+(?:\.[a-z_0-9]+)+)=")
_MOST_NAMED = 3
_NOTHING = "-"


def sentences_across(found: Interactions) -> list[str]:
    """Return what is found across groups: which arms' effects depend on the group, and what could not be seen."""
    arms = [row for row in found.rows if row.role is Role.ARM]
    if not arms:
        return []
    axes = _axes(found)
    title = describe(found.metric).title
    ask = f"Does the effect on {title} depend on {axes}?"
    most = max((change.n for row in arms for change in row.changes.values()), default=0)
    if most < LEAST_SEEDS:
        have = "none" if most == 0 else f"at most {most}"
        return [
            f"{ask} No verdict: it takes {LEAST_SEEDS} seeds that an arm and its baseline have in both groups; "
            f"there are {have}."
        ]
    changes = [(row, group, change) for row in arms for group, change in row.changes.items()]
    seeds = sorted({change.n for _, _, change in changes})
    scope = f"{len(arms)} arm{'s' * (len(arms) != 1)}, {seeds[0]}{f' to {seeds[-1]}' * (len(seeds) > 1)} seeds"
    unseen = _unseen(found)
    depends = [each for each in changes if each[2].is_found]
    if not depends:
        return [f"{ask} No difference of differences is found ({scope}){unseen and f': those {unseen}'}."]
    texts = [
        f"{one_line(row.arm)} in {one_line(group)}: {interval_text(change, found.metric)}"
        for row, group, change in depends[:_MOST_NAMED]
    ]
    more = f"; and {len(depends) - _MOST_NAMED} more" if len(depends) > _MOST_NAMED else ""
    sentences = [f"{ask} It does, against {one_line(found.first)}, with {'; '.join(texts)}{more} ({scope})."]
    if unseen and len(depends) < len(changes):
        sentences.append(f"Other differences of differences {unseen}.")
    return sentences


def heading(found: Interactions) -> str:
    """Return the title of the section."""
    return f"Across groups: {one_line(describe(found.metric).title)} against {one_line(found.first)}"


def columns(found: Interactions) -> list[str]:
    """Return the titles of the columns."""
    return ["arm", *map(one_line, found.others), "over all groups", "tau"]


def change_texts(found: Interactions, row: ArmAcross) -> list[tuple[str, bool]]:
    """Return for each other group how much more a row is there, and whether that is found."""
    return [_cell(row.changes.get(group), found.metric) for group in found.others]


def combined_texts(found: Interactions, row: ArmAcross) -> tuple[str, str]:
    """Return the effect over all groups with its interval, and the spread of the true effect."""
    each, digits = row.combined, decimals(found.metric)
    if each is None:
        return _NOTHING if row.role is Role.ARM else "", _NOTHING if row.role is Role.ARM else ""
    text = format_change(each.estimate, each.low, each.high, digits)
    fewer = f" of {each.num_groups} groups" if each.num_groups <= len(found.others) else ""
    return f"{text}{fewer}", f"{each.tau:.{digits}f}"


def label(row: ArmAcross) -> str:
    """Return what follows the name of a row."""
    return " (baseline)" if row.role is Role.BASELINE else ""


def notes_across(found: Interactions) -> list[str]:
    """Return what the table shows."""
    first = one_line(found.first)
    notes = [
        f"A group's column: the arm's difference to the baseline there, less that in {first}, with its 95% interval, "
        "simultaneous over arms and groups; seeds are blocks where the groups share them. Bold: it excludes 0.",
        f"The baseline's row: its mean in the group less that in {first}, paired by seed where the groups share "
        "seeds (Student's t), else Welch's interval; each by itself.",
    ]
    if found.is_grown:
        notes.append(
            "Seeds grew where arms were undecided; these intervals take no account of the looks: they are for reading, "
            "not for claims."
        )
    if any(row.combined is not None for row in found.rows):
        notes.append(
            "Over all groups: the mean of the arm's difference to the baseline over such groups, of which these are "
            "taken for a sample (random effects; Paule and Mandel; Hartung and Knapp's interval, each by itself, wide "
            "with few groups); tau: the standard deviation of the true difference over them."
        )
    return notes


def to_json(found: Interactions) -> dict[str, Any]:
    """Return what is found as JSON values."""
    return {
        "metric": found.metric,
        "against": found.first,
        "says": sentences_across(found),
        "could_have_seen": {group: found.detectable.get(group) for group in found.others},
        "rows": [
            {
                "arm": row.arm,
                "role": row.role,
                "groups": {
                    group: {**vars(change), "is_found": change.is_found} for group, change in row.changes.items()
                },
                "over_all_groups": None if row.combined is None else vars(row.combined),
            }
            for row in found.rows
        ],
    }


def render_interactions_csv(found: Interactions) -> str:
    """Return what is found as CSV, in full precision: a line for each row and other group.

    ``diff`` is the change of an arm's difference to the baseline from the group ``against`` (of the baseline: of its
    mean), with ``diff_low``, ``diff_high``, ``diff_n``, ``diff_p``, and ``is_found``; ``all_*`` is the arm's effect
    over all groups, the same on each of its lines.
    """
    names = [field.name for field in dataclasses.fields(CombinedEffect)]
    lines: list[dict[str, object]] = []
    for row in found.rows:
        of_all = {f"all_{name}": None if row.combined is None else getattr(row.combined, name) for name in names}
        for group in found.others:
            change = row.changes.get(group, Change(0))
            own = {"diff": change.mean, "diff_low": change.low, "diff_high": change.high, "diff_n": change.n}
            own |= {"diff_p": change.p_value, "is_found": change.is_found or None}
            place = {"arm": row.arm, "role": str(row.role), "group": group, "against": found.first}
            lines.append({**place, "metric": found.metric, **own, **of_all})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _axes(found: Interactions) -> str:
    """Return the names of what varies, as the groups' texts have them."""
    names = dict.fromkeys(name for group in (found.first, *found.others) for name in _AXIS.findall(group))
    return " and ".join(names) or "the group"


def _unseen(found: Interactions) -> str:
    if not found.detectable:
        return ""
    low, high = (format_size(found.metric, pick(found.detectable.values())) for pick in (min, max))
    return f"under {low if low == high else f'{low} to {high}'} could not have been seen"


def _cell(change: Change | None, metric: str) -> tuple[str, bool]:
    if change is None or change.mean is None:
        return _NOTHING, False
    return interval_text(change, metric), change.is_found


def interval_text(change: Change, metric: str) -> str:
    """Return a change with its interval, if it has one."""
    return format_change(change.mean or 0.0, change.low, change.high, decimals(metric))
