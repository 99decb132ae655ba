"""Two sweeps side by side, in the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.compare import Side, SweepComparison
from orchestrator.reports.interactions import Change
from orchestrator.reports.rendering.formatting import column_title, decimals, describe, fold_arm, format_size
from orchestrator.reports.rendering.interaction_text import interval_text
from orchestrator.reports.rendering.terminal_text import two_lines
from orchestrator.reports.side_by_side import ComparedArm, SideCell
from orchestrator.statistics import LEAST_SEEDS
from orchestrator.trials.records import State
from orchestrator.trials.trial import Role
from specvit.messages import one_line

_MOST_NAMED = 3
_NOTHING = "-"


def render_comparison(first: Side, second: Side, found: SweepComparison) -> RenderableType:
    """Return what ``rich.console.Console.print`` takes: the sides, what is found, the arms, and what differs."""
    parts: list[RenderableType] = [Text(f"A: {_side_text(first)}"), Text(f"B: {_side_text(second)}"), Text()]
    parts += map(Text, says(found))
    for group, arms in groupby(found.arms, key=lambda arm: arm.group):
        parts += [Text(), Text(one_line(group), style="italic")] if group else []
        parts.append(_table(found.metric, list(arms)))
    parts += [_note(note) for note in _notes(found)]
    parts += [Text(), Text("What differs:" if found.differences else "Nothing else that is recorded differs.")]
    for kind, of_kind in groupby(found.differences, key=lambda each: each.kind):
        parts.append(_note(kind, style=""))
        for each in of_kind:
            name = f"{one_line(each.name)}: " if each.name else ""
            parts.append(Padding(Text(f"{name}{one_line(each.first)} -> {one_line(each.second)}"), (0, 0, 0, 3)))
    return Group(*parts)


def comparison_json(first: Side, second: Side, found: SweepComparison) -> dict[str, Any]:
    """Return the comparison as JSON values; ``diff`` is B - A."""
    return {
        "a": {"target": first.target, "sweep": first.info.name, **_run_values(first)},
        "b": {"target": second.target, "sweep": second.info.name, **_run_values(second)},
        "metric": found.metric,
        "paired": found.paired,
        "says": says(found),
        "could_have_seen": found.detectable,
        "could_have_seen_of_effects": found.detectable_effect,
        "arms": [
            {
                "group": arm.group,
                "arm": arm.arm,
                "role": arm.role,
                **{f"a_{name}": value for name, value in vars(arm.first).items()},
                **{f"b_{name}": value for name, value in vars(arm.second).items()},
                "diff": arm.change.mean,
                "diff_low": arm.change.low,
                "diff_high": arm.change.high,
                "diff_p": arm.change.p_value,
                "diff_n": arm.change.n,
                "is_found": arm.change.is_found,
                "effect_diff": None if arm.effect is None else arm.effect.mean,
                "effect_diff_low": None if arm.effect is None else arm.effect.low,
                "effect_diff_high": None if arm.effect is None else arm.effect.high,
                "effect_diff_p": None if arm.effect is None else arm.effect.p_value,
                "effect_diff_n": None if arm.effect is None else arm.effect.n,
                "effect_is_found": arm.effect is not None and arm.effect.is_found,
                "is_pruned": arm.is_pruned,
                "is_same": arm.is_same,
            }
            for arm in found.arms
        ],
        "only_a": found.only_first,
        "only_b": found.only_second,
        "differences": [
            {"kind": each.kind, "name": each.name, "a": each.first, "b": each.second} for each in found.differences
        ],
    }


def says(found: SweepComparison) -> list[str]:
    """Return in sentences what is found, and how."""
    return [_of_arms(found), *_of_effects(found), _pairing(found)]


def _pairing(found: SweepComparison) -> str:
    if found.paired:
        return "Paired by seed: the trainings are configured alike."
    if found.alike:
        return "Not paired: the trainings are configured alike, but have no seed in common."
    how = {"configuration", "data"} & {each.kind for each in found.differences}
    by = "" if how else " by defaults or the protocol of their versions"
    return f"Not paired: the trainings are configured differently{by}, so that a seed does not mean the same."


def _of_arms(found: SweepComparison) -> str:
    """Return what is found of the arms themselves."""
    title = describe(found.metric).title
    trained = [arm for arm in found.arms if arm.role.is_ablated]
    same = [arm for arm in trained if arm.is_same]
    if trained and len(same) == len(trained):
        return f"All {len(trained)} arms have the same {title} to the last bit."
    most = max((arm.change.n for arm in trained if not arm.is_same), default=0)
    if most < LEAST_SEEDS:
        have = "at most " * bool(most) + (str(most) if most else "none")
        which = "seeds that an arm has in both" if found.paired else "seeds of an arm on each side"
        return f"No verdict on {title}: it takes {LEAST_SEEDS} {which}; there are {have}."
    judged = [arm for arm in trained if arm.change.low is not None]
    arms = f"{len(judged)} arm{'s' * (len(judged) != 1)}"
    if same:
        arms = f"{len(judged)} of {len(trained)} arms, the others are the same"
    scope = f"{arms}, {_seeds([arm.change for arm in judged])}"
    differing = [(arm, arm.change) for arm in judged if arm.change.is_found]
    if differing:
        return f"{title} differs (B - A) with {_listed(differing, found.metric)} ({scope})."
    unseen = _unseen("differences", found.detectable, found.metric)
    return f"No arm is found to differ in {title} ({scope}){unseen}."


def _of_effects(found: SweepComparison) -> list[str]:
    """Return what is found of the arms' differences to the baseline; nothing where there is no interval."""
    judged = [(arm, arm.effect) for arm in found.arms if arm.effect is not None and arm.effect.n >= LEAST_SEEDS]
    if not judged:
        return []
    title = describe(found.metric).title
    scope = f"{len(judged)} arm{'s' * (len(judged) != 1)}, {_seeds([change for _, change in judged])}"
    differing = [(arm, change) for arm, change in judged if change.is_found]
    if differing:
        text = _listed(differing, found.metric)
        return [f"The effect on {title}, the difference to the baseline, differs with {text} ({scope})."]
    unseen = _unseen("those", found.detectable_effect, found.metric)
    return [f"No effect on {title}, the difference to the baseline, is found to differ ({scope}){unseen}."]


def _seeds(changes: Sequence[Change]) -> str:
    seeds = sorted({change.n for change in changes}) or [0]
    return f"{seeds[0]}{f' to {seeds[-1]}' * (len(seeds) > 1)} seeds"


def _listed(changes: Sequence[tuple[ComparedArm, Change]], metric: str) -> str:
    texts = [f"{_name(arm)}: {interval_text(change, metric)}" for arm, change in changes[:_MOST_NAMED]]
    more = f" and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
    return "; ".join(texts) + more


def _unseen(what: str, detectable: float | None, metric: str) -> str:
    return "" if detectable is None else f": {what} under {format_size(metric, detectable)} could not have been seen"


def _name(arm: ComparedArm) -> str:
    return one_line(f"{arm.group}: {arm.arm}" if arm.group else arm.arm)


def _side_text(side: Side) -> str:
    values = _run_values(side)
    done = f"{values['done']} of {values['trials']} trials done"
    commit = f", commit {str(values['commit'])[:12]}" if values["commit"] else ""
    started = f", run {values['started_at']}" if values["started_at"] else ""
    return one_line(f"{side.target}: {side.info.name}, {done}{commit}{started}")


def _run_values(side: Side) -> dict[str, object]:
    return {
        "done": sum(record.state is State.DONE for record in side.records),
        "trials": len(side.records),
        "commit": side.environment.get("git_sha"),
        "started_at": side.environment.get("started_at"),
    }


def _table(metric: str, arms: list[ComparedArm]) -> Table:
    view = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False)
    view.add_column("arm", overflow="fold", min_width=16)
    has_effects = any(arm.effect is not None for arm in arms)
    for title in ("A", "B", "B - A", *["effect: B - A"] * has_effects):
        view.add_column(f"{title}: {one_line(column_title(metric))}" if title == "A" else title, justify="right")
    for arm, following in zip(arms, [*arms[1:], None], strict=True):
        role = "" if arm.role is Role.ARM else f" ({arm.role})"
        view.add_row(
            Text.assemble(fold_arm(one_line(arm.arm)), (role, "dim")),
            _cell_text(metric, arm.first),
            _cell_text(metric, arm.second),
            Text(_change_text(metric, arm), style="bold" * arm.change.is_found),
            *[_effect_text(metric, arm)] * has_effects,
            end_section=following is not None and following.role is not arm.role,
        )
    return view


def _cell_text(metric: str, cell: SideCell) -> str:
    digits = decimals(metric)
    if cell.mean is None:
        return _NOTHING
    return f"{cell.mean:z.{digits}f}" + ("" if cell.sd is None else f" ± {cell.sd:.{digits}f}") + f" n={cell.n}"


def _change_text(metric: str, arm: ComparedArm) -> str:
    if arm.is_pruned:
        return "pruned"
    if arm.is_same:
        return "same"
    return _NOTHING if arm.change.mean is None else two_lines(interval_text(arm.change, metric))


def _effect_text(metric: str, arm: ComparedArm) -> Text:
    if arm.effect is None:
        return Text("")
    return Text(two_lines(interval_text(arm.effect, metric)), style="bold" * arm.effect.is_found)


def _notes(found: SweepComparison) -> list[str]:
    notes = [
        "B - A: with its 95% interval, simultaneous over all arms; "
        + ("Student's of the differences within seeds" if found.paired else "Welch's")
        + ", each variance pooled over the arms of a group. Bold: it excludes 0. Controls and floors have no interval.",
    ]
    if any(arm.effect is not None for arm in found.arms):
        notes.append(
            "effect: B - A: how much larger the arm's difference to the baseline is in B, with its 95% interval, "
            "simultaneous over the arms. Seeds are blocks, so that what other seeds do to all arms is not in it."
        )
    if any(arm.is_same for arm in found.arms):
        notes.append("same: the values of the seeds that both have are equal to the last bit.")
    if found.paired and not all(arm.is_same for arm in found.arms):
        notes.append(
            "Where a recipe amplifies rounding, other code, versions or machines draw new numbers: a difference may be "
            "no more than another draw."
        )
    for side, only in (("A", found.only_first), ("B", found.only_second)):
        if only:
            notes.append(f"Only in {side}: {', '.join(map(one_line, only))}.")
    return notes


def _note(text: str, style: str = "dim") -> Padding:
    return Padding(Text(text, style=style), (0, 0, 0, 1))
