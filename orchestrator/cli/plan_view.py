"""A plan as the terminal shows it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.console import Group as RichGroup
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.power_view import growth_line, power_lines
from orchestrator.plan import Plan, PlannedArm, PlannedMemory
from orchestrator.reports.rendering.formatting import fold_arm, format_seconds
from orchestrator.scheduling.forecast import Forecast
from orchestrator.trials.records import WITHOUT_WEIGHTS
from orchestrator.trials.trial import Role
from specvit.messages import one_line
from specvit.specialization.language import NO_SPECIALIZATION

MAX_SHOWN = 1000
"""Arms that a rendered plan shows: more than anyone reads, and few enough to be printed within seconds."""

_MARKED = (Role.BASELINE, Role.CONTROL, Role.EXTERNAL)
"""Roles that a row tells beside its text."""

_WIDE = 0.05
"""Part of the forecast by which simulations must differ for their range to be worth telling."""


def render_plan(plan: Plan) -> RenderableType:
    """Render a plan: a table of arms by group, and a line with the forecast. Of very many arms the first are shown."""
    parts: list[RenderableType] = [Text(one_line(plan.name), style="bold")]
    if plan.question:
        parts.append(Text(one_line(plan.question), style="italic"))
    for group, arms in itertools.groupby(plan.arms[:MAX_SHOWN], key=lambda arm: arm.group):
        table = Table(title=Text(one_line(group)) if group else None, title_justify="left")
        table.add_column("arm")
        for name in ("parameters", "extra %", "trials", "to run", "time each"):
            table.add_column(name, justify="right")
        for arm in arms:
            table.add_row(*_cells(arm))
            if arm.role.is_trained and arm.specialize != NO_SPECIALIZATION and arm.specialize not in arm.arm:
                table.add_row(Text(f"  = {arm.specialize}".replace("+", "\n  + "), style="dim"))
        parts.append(table)
    if len(plan.arms) > MAX_SHOWN:
        parts.append(Text(f"and {len(plan.arms) - MAX_SHOWN} more arms, which --json lists"))
    has_external = any(arm.role is Role.EXTERNAL for arm in plan.arms)
    floors = "floors and external backbones (one trial each)" if has_external else "floors"
    controls = ", controls" if any(arm.role is Role.CONTROL for arm in plan.arms) else ""
    parts.append(
        Text(
            f"{plan.num_groups} group{'s' * (plan.num_groups != 1)}, {len(plan.arms)} arms with baseline{controls} and "
            f"{floors}, {len(plan.seeds)} seed{'s' * (len(plan.seeds) != 1)}, {plan.num_trials} trials, "
            f"{plan.forecast.num_pending} to run"
        )
    )
    if plan.expected_trials is not None:
        parts.append(Text(growth_line(plan.num_trials, plan.expected_trials)))
    if text := _reuse_text(plan):
        parts.append(Text(text))
    parts += _memory_parts(plan.memory)
    parts.append(Text(_forecast_text(plan.forecast)))
    if plan.power is not None and plan.power.groups:
        parts += [Text(line) for line in power_lines(plan.power)]
    if plan.gpus_in_vain:
        parts.append(Text(plan.gpus_in_vain, style="yellow"))
    return RichGroup(*parts)


def _reuse_text(plan: Plan) -> str:
    """Return what trainings that are on record spare a run, human-readable; empty if nothing."""
    counts = (
        (plan.num_evaluated, "to be evaluated only, on kept weights"),
        (plan.num_taken, "known from trials of the same trainings"),
        (plan.num_without_weights, f"left out: {WITHOUT_WEIGHTS}"),
    )
    return "; ".join(f"{count} {what}" for count, what in counts if count)


def _cells(arm: PlannedArm) -> list[Text]:
    name = fold_arm(one_line(arm.arm)) + (f" ({arm.role})" if arm.role in _MARKED else "")
    values = (
        f"{arm.num_parameters:,}" if arm.num_parameters else "",
        f"+{arm.extra_parameters_percent:.2f}" if arm.role in (Role.ARM, Role.CONTROL) else "",
        str(arm.num_trials),
        str(arm.num_pending),
        format_seconds(arm.seconds_per_trial),
    )
    return [Text(name, style="" if arm.role.is_trained else "dim"), *map(Text, values)]


def _memory_parts(memory: Sequence[PlannedMemory]) -> list[RenderableType]:
    """Return a table of what trials of each scale take, with a column of GPUs where they have some, and warnings."""
    on_gpus = any(each.gpu_gib != 0 for each in memory)
    title = "GiB of memory a process, by arithmetic" + " (not measured on GPUs)" * on_gpus
    table = Table()
    table.add_column("scale")
    for name in (*(["GPU"] if on_gpus else []), "machine", "of which features", "reserved"):
        table.add_column(name, justify="right")
    warnings = []
    for each in memory:
        sizes = (*([each.gpu_gib] if on_gpus else []), each.machine_gib, each.features_gib)
        reserved = f"{each.reserved_gib:.1f}" if each.reserved_gib else ""
        table.add_row(each.scale, *("?" if size is None else f"{size:.1f}" for size in sizes), reserved)
        if each.exceeds:
            warnings.append(
                f"trials of {each.scale} take {each.machine_gib:.1f} GiB of the machine's memory by arithmetic, more "
                f"than resources.memory_gib says, {each.reserved_gib:g}"
            )
    return [Text(title), table, *(Text(warning, style="yellow") for warning in warnings)]


def _forecast_text(made: Forecast) -> str:
    """Return a forecast, human-readable, in lines."""
    middle, seconds = made.middle, made.seconds
    if made.num_pending == 0:
        return "nothing to run"
    if middle is None or seconds is None:
        slots = f"{made.num_slots} slot{'s' * (made.num_slots != 1)}"
        text = "no forecast: no trial of this sweep has been measured yet"
        about = f"; by arithmetic about {format_seconds(made.rough_s)} on {slots}, a guess"
        return text if made.rough_s is None else text + about
    wide = ""
    low_s, high_s = made.runs[0].makespan_s, made.runs[-1].makespan_s
    if high_s - low_s > _WIDE * seconds:
        wide = f" ({format_seconds(low_s)} to {format_seconds(high_s)})"
    slots = f"{made.num_slots} slot{'s' * (made.num_slots != 1)}"
    lines = [f"forecast: {format_seconds(seconds)}{wide} on {slots}, from {made.num_measured} measured trials"]
    facts = [f"slots busy {100 * middle.busy:.0f}% of the time"]
    if middle.gpu_hours:
        facts.append(f"{middle.gpu_hours:.1f} GPU hours")
    if made.first_seed_s is not None:
        when = f"after {format_seconds(made.first_seed_s)}" if made.first_seed_s else "already"
        facts.append(f"the first seed is complete {when}")
    if made.failure_rate:
        facts.append(f"{100 * made.failure_rate:.1f}% of attempts fail, as so far")
    lines.append("; ".join(facts))
    if num := len(middle.skipped):
        seeds = f"seed{'s' * (len(made.skipped_seeds) != 1)} {', '.join(map(str, made.skipped_seeds))}"
        lines.append(f"{middle.reason} leaves out {num} trial{'s' * (num != 1)}, of {seeds}")
    return "\n".join(lines)
