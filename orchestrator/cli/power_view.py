"""What a sweep could see, as the terminal shows it: a table, and in a plan a line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rich.box import SIMPLE_HEAD
from rich.console import Group as RichGroup
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.power import GroupPower, SweepPower
from orchestrator.reports.rendering.formatting import column_title, decimals, describe, format_size, list_texts
from specvit.messages import one_line

_UNKNOWN = "before two seeds of it are measured, or of a sweep like it under the same results folder"


def render_power(power: SweepPower, name: str) -> RenderableType:
    """Render what a sweep could see: a table for each group, and the lines of a plan."""
    parts: list[RenderableType] = [Text(one_line(name), style="bold")]
    for group in power.groups:
        parts += [Text(), Text(one_line(group.group), style="italic")] if group.group else []
        parts += [_table(power, group)] if group.metrics else []
    if power.expected_trials is not None:
        parts.append(Text(growth_line(power.num_trials, power.expected_trials)))
    return RichGroup(*parts, *map(Text, power_lines(power)))


def growth_line(num_trials: int, expected_trials: float) -> str:
    """Return what is said of the trials of a sweep whose seeds grow."""
    about = f"about {expected_trials:.0f} where no arm has an effect, as simulated"
    return f"seeds grow: {num_trials} trials at most, {about}"


def power_lines(power: SweepPower) -> list[str]:
    """Return what a sweep could see, in lines."""
    if not power.groups:
        return ["could see: nothing; there is no arm beside the baseline"]
    if not power.is_known:
        return [
            f"could see: not known {_UNKNOWN}; 'specsweep power' takes the noise by --sd METRIC=SD",
            *_cost_lines(power),
        ]
    arms = _span([group.num_arms for group in power.groups])
    scope = f"{arms} arm{'s' * (arms != '1')}, {power.num_seeds} seed{'s' * (power.num_seeds != 1)}"
    titles = {each.metric: describe(each.metric).title for group in power.groups for each in group.metrics}
    others = " as if all were run at once"
    if power.by_looks and len(titles) > 1:
        scope += f" at most by looks, for others than {titles[power.primary]}{others}"
    else:
        scope += " at most by looks" if power.by_looks else others * power.grows
    if power.num_seeds < 2:
        nothing = f"could see: nothing; with one seed no difference can be told from noise ({scope})"
        return [nothing, *_find_lines(power)]
    texts = []
    for metric, title in titles.items():
        seen = [
            each.detectable
            for group in power.groups
            for each in group.metrics
            if each.metric == metric and each.detectable is not None
        ]
        texts.append(f"{title} {_span(seen, partial(format_size, metric))}")
    sources = list(dict.fromkeys(each.source for group in power.groups for each in group.metrics))
    origin = list_texts(sources[:2]) + (" and others" if len(sources) > 2 else "")
    lines = [
        f"could see, with 80% probability: differences from {', '.join(texts)} ({scope}; noise: {one_line(origin)})"
    ]
    if missing := sum(not group.metrics for group in power.groups):
        lines.append(f"of {missing} group{'s' * (missing != 1)} the noise is not known {_UNKNOWN}")
    if power.num_seeds < power.least_seeds:
        lines.append(f"a verdict takes {power.least_seeds} seeds")
    return [*lines, *_find_lines(power)]


def _find_lines(power: SweepPower) -> list[str]:
    """Return how many seeds the wanted differences take, and what they cost."""
    lines = []
    wanted = {each.metric: each.wanted for group in power.groups for each in group.metrics if each.wanted is not None}
    for metric, difference in wanted.items():
        counts = [each.seeds_to_find for group in power.groups for each in group.metrics if each.metric == metric]
        known = [count for count in counts if count is not None]
        takes = "more than 10,000" if len(known) < len(counts) else _span(known)
        lines.append(f"a difference of {difference:g} in {describe(metric).title} takes {takes} seeds")
    return [*lines, *_cost_lines(power)]


def _cost_lines(power: SweepPower) -> list[str]:
    hours = power.core_hours(power.num_seeds)
    if hours is None:
        return []
    seeds = f"{power.num_seeds} seed{'s' * (power.num_seeds != 1)}"
    text = f"{'at most ' * power.grows}{_hours(hours)} core-hours with {seeds}"
    more = power.seeds_to_find
    if more is not None and more != power.num_seeds:
        text += f", {_hours(power.core_hours(more) or 0.0)} with {more}"
    return [f"{text}, from measured trials"]


def _table(power: SweepPower, group: GroupPower) -> Table:
    view = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    view.add_column("metric")
    for title in ("noise (sd)", "df", f"could see ({power.num_seeds} seed{'s' * (power.num_seeds != 1)})"):
        view.add_column(title, justify="right")
    has_wanted = any(each.wanted is not None for each in group.metrics)
    for title in ("wanted", "seeds") if has_wanted else ():
        view.add_column(title, justify="right")
    view.add_column("noise from", overflow="fold")
    for each in group.metrics:
        digits = decimals(each.metric)
        cells = [column_title(each.metric) + " (primary)" * (each.metric == power.primary)]
        cells += [f"{each.sd:.{digits + 1}f}", "" if each.df is None else str(each.df)]
        cells.append("" if each.detectable is None else format_size(each.metric, each.detectable))
        if has_wanted:
            seeds = "> 10,000" if each.seeds_to_find is None else str(each.seeds_to_find)
            cells += ["", ""] if each.wanted is None else [f"{each.wanted:g}", seeds]
        view.add_row(*map(Text, cells), Text(one_line(each.source)))
    return view


def _span(numbers: list[float] | list[int], write: Callable[[float], str] = str) -> str:
    """Return a number, or the least and the largest of several."""
    low, high = write(min(numbers)), write(max(numbers))
    return low if low == high else f"{low} to {high}"


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 0.95 else f"{hours:.2g}"
