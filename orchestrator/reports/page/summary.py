"""The first screen: what is asked, how far the sweep is, what went wrong, and what is found."""

from __future__ import annotations

from collections import Counter

from orchestrator.reports.ablation_table import AblationTable
from orchestrator.reports.page.costs import time_unit
from orchestrator.reports.page.markup import bullets, plural, prose, table, text
from orchestrator.reports.page.report import SweepReport
from orchestrator.reports.rendering.formatting import describe, list_texts
from orchestrator.reports.rendering.interaction_text import sentences_across
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.reports.unlearnt import learning_note
from orchestrator.statistics import Verdict
from orchestrator.trials.records import DECIDED, State
from orchestrator.trials.trial import Role

_MOST_NOTES = 3
"""On what was not learnt; below there are all."""


def header(report: SweepReport) -> str:
    """Return the name of the sweep, its question and how far it is."""
    info = report.info
    question = f'<p class="question">{prose(info.question)}</p>' if info.question else ""
    seen = f'<p class="seen">{text(report.seen_at)}</p>' if report.seen_at else ""
    return f"<header><h1>{text(info.name)}</h1>{question}{seen}{_facts(report)}{_warning(report)}</header>"


def findings(report: SweepReport) -> str:
    """Return what the sweep says: the sentences of each group, and those across groups."""
    parts = []
    if report.shows_all:
        for group, of_group in report.tables.items():
            sentences = sentences_of(of_group)
            title = f"<h3>{text(group)}</h3>" if group else ""
            parts.append(title + "".join(f"<p>{prose(each)}</p>" for each in sentences) if sentences else "")
    else:
        parts.append(_overview(report))
    if report.across is not None:
        told = "".join(f"<p>{prose(each)}</p>" for each in sentences_across(report.across))
        parts.append(f"<h3>Across groups</h3>{told}" if told else "")
    inside = "".join(parts)
    if not inside:
        inside = "<p>No arm is compared with a baseline yet, or there is none: the table below has means alone.</p>"
    return f'<section id="findings" class="findings"><h2>What is found</h2>{inside}</section>'


def _facts(report: SweepReport) -> str:
    records, counts = report.records, report.counts
    arms = {record.trial.arm for record in records if record.trial.role is Role.ARM}
    groups, seeds = len(report.tables), len({record.trial.seed for record in records})
    primary = next((each.primary for each in report.tables.values() if each.primary), "")
    effect = next((each.smallest_effect for each in report.tables.values() if each.smallest_effect is not None), None)
    core_h = sum(record.core_seconds or 0.0 for record in records) / 3600
    gpu_h = sum(report.usage[r.trial.trial_id].gpu_s for r in records if r.trial.trial_id in report.usage) / 3600
    unit, factor = time_unit(gpu_h or core_h)
    facts = [
        ("trials done", f"{counts[State.DONE]:,} of {len(records):,}"),
        ("arms", f"{len(arms):,}" + (f" in {plural(groups, 'group')}" if groups > 1 else "")),
        ("seeds", f"{seeds}"),
        ("primary metric", describe(primary).title if primary else "none"),
        ("smallest effect", "none declared" if effect is None else f"{effect:g}"),
        (f"{'GPU' if gpu_h else 'core'} {unit}", f"{(gpu_h or core_h) * factor:,.1f}"),
    ]
    return '<dl class="facts">' + "".join(f"<div><dt>{n}</dt><dd>{text(v)}</dd></div>" for n, v in facts) + "</dl>"


def _warning(report: SweepReport) -> str:
    """Return what a reader has to know before anything else; nothing where all went as planned."""
    counts, total = report.counts, len(report.records)
    lines = []
    if report.num_unfinished:
        running = f", {counts[State.RUNNING]} of them running" if counts[State.RUNNING] else ""
        lines.append(
            f"<b>Not finished:</b> {plural(report.num_unfinished, 'trial')} of {total:,} still to do{running}; "
            "what is said here may change."
        )
    if counts[State.FAILED]:
        lines.append(
            f"<b>Failed:</b> {plural(counts[State.FAILED], 'trial')} of {total:,}; means are over the seeds that did "
            "not fail."
        )
    if counts[State.PRUNED]:
        lines.append(
            f"<b>Pruned:</b> {plural(counts[State.PRUNED], 'trial')} of {total:,}; means of their arms are over the "
            "surviving seeds, which flatter them: they have no interval and no verdict."
        )
    # Where seeds grow, an arm that is decided needs no more: that is as planned.
    if left_out := sum(r.state is State.SKIPPED and r.skip_reason != DECIDED for r in report.records):
        lines.append(f"<b>Left out:</b> {plural(left_out, 'trial')} of {total:,}.")
    notes = dict.fromkeys(filter(None, (learning_note(each.unlearnt) for each in report.tables.values())))
    lines += [prose(note) for note in list(notes)[:_MOST_NOTES]]
    if not lines:
        return ""
    kind = "unfinished" if report.num_unfinished else "trouble"
    more = '<p><a href="#trouble">Which, and why</a></p>'
    return f'<div class="warning {kind}" role="note">{bullets(lines)}{more}</div>'


def _overview(report: SweepReport) -> str:
    """Return a table of many groups: how many arms have which verdict, and which one is best."""
    words = [str(verdict) for verdict in Verdict]
    total: Counter[str] = Counter()
    rows = []
    for number, (group, of_group) in enumerate(report.tables.items()):
        verdicts, best = _verdicts(of_group)
        total += verdicts
        states = Counter(record.state for record in report.by_group[group])
        others = ", ".join(f"{count} {state}" for state, count in states.items() if state is not State.DONE)
        rows.append([
            ("", f'<a href="#group-{number}">{text(group, 80)}</a>'),
            *(("n", str(verdicts[word] or "")) for word in words), ("", best), ("", text(others)),
        ])
    told = list_texts([f"{total[word]:,} {word}" for word in words])
    head = [("", "group"), *(("n", word) for word in words), ("", "largest gain"), ("", "not done")]
    return f"<p>{plural(len(rows), 'group')}; of their arms are {told}.</p>{table(head, rows, classes='compact')}"


def _verdicts(of_group: AblationTable) -> tuple[Counter[str], str]:
    found: Counter[str] = Counter()
    best: tuple[float, str] | None = None
    for row in of_group.rows:
        cell = row.metrics.get(of_group.primary)
        difference = None if cell is None else cell.difference
        if row.role is not Role.ARM or difference is None or difference.verdict is None:
            continue
        found[str(difference.verdict)] += 1
        if difference.verdict is Verdict.BETTER and difference.mean is not None:
            size = abs(difference.mean)
            if best is None or size > best[0]:
                best = size, f"{text(row.arm, 60)} {difference.mean:+.3g}"
    return found, "" if best is None else best[1]
