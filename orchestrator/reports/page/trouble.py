"""The section on what did not go as planned: failed, pruned, left-out and unfinished trials, and retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from orchestrator.reports.mixed import mixture_note
from orchestrator.reports.page.markup import Cell, bullets, details, plural, prose, section, table, text
from orchestrator.reports.page.report import SweepReport
from orchestrator.reports.skipped_images import skipped_note
from orchestrator.reports.unlearnt import learning_note
from orchestrator.trials.records import State, TrialRecord

_MOST_ROWS = 100
_UNFINISHED = (State.WAITING, State.PENDING, State.RUNNING)


def trouble_section(report: SweepReport) -> str:
    """Return all that did not go as planned, or that all did."""
    parts = [
        _listed(report, "Failed", (State.FAILED,), "error", _failure, is_open=True),
        _listed(report, "Pruned", (State.PRUNED,), "why", _pruned, is_open=False),
        _left_out(report),
        _listed(report, "Not finished", _UNFINISHED, "where it is", _progress, is_open=False),
        _retried(report),
        _notes(report),
    ]
    body = "".join(parts) or "<p>Every trial ran to its end in its first attempt.</p>"
    return section("trouble", "What did not go as planned", body)


def _listed(
    report: SweepReport,
    title: str,
    states: tuple[State, ...],
    what: str,
    tell: Callable[[TrialRecord], str],
    *,
    is_open: bool,
) -> str:
    """Return a table of the trials in some states."""
    found = [record for record in report.records if record.state in states]
    if not found:
        return ""
    rows: list[Sequence[Cell]] = [
        [("", text(_name(record))), ("n", str(record.num_attempts)), ("", tell(record))]
        for record in found[:_MOST_ROWS]
    ]
    more = len(found) - len(rows)
    rest = f"<p>and {plural(more, 'more trial')}, which <code>specsweep status</code> and <code>logs</code> tell.</p>"
    inside = table([("", "trial"), ("n", "attempts"), ("", what)], rows, classes="compact") + (rest if more else "")
    return details(f"<b>{title}</b>: {plural(len(found), 'trial')}", inside, is_open=is_open)


def _name(record: TrialRecord) -> str:
    return f"{record.trial.group}: {record.trial.label}" if record.trial.group else record.trial.label


def _failure(record: TrialRecord) -> str:
    cause = f"{record.cause}: " if record.cause is not None else ""
    return text(f"{cause}{record.error or ''}")


def _pruned(record: TrialRecord) -> str:
    return text(record.error or "") + (f" at step {record.step:,}" if record.step else "")


def _progress(record: TrialRecord) -> str:
    if record.state is not State.RUNNING:
        return text(record.state)
    return f"running, step {record.step:,}" + (f" of {record.steps:,}" if record.steps else "")


def _left_out(report: SweepReport) -> str:
    reasons = Counter(r.skip_reason or "not said" for r in report.records if r.state is State.SKIPPED)
    if not reasons:
        return ""
    inside = bullets(f"{plural(count, 'trial')}: {text(reason)}" for reason, count in reasons.most_common(20))
    return details(f"<b>Left out</b>: {plural(sum(reasons.values()), 'trial')}", inside, is_open=True)


def _retried(report: SweepReport) -> str:
    """Return how many trials took several attempts, and what ended those that did not count."""
    known = [(r, report.usage[r.trial.trial_id]) for r in report.records if r.trial.trial_id in report.usage]
    again = [(record, usage) for record, usage in known if usage.attempts > 1 and usage.troubles]
    if not again:
        return ""
    causes: Counter[str] = Counter()
    for _, usage in again:
        causes.update(usage.troubles)
    told = ", ".join(f"{text(cause)} {count}" for cause, count in causes.most_common())
    rows: list[Sequence[Cell]] = [
        [
            ("", text(_name(record))), ("n", str(usage.attempts)), ("", text(record.state)),
            ("", text(", ".join(f"{cause} {count}" for cause, count in usage.troubles.items()))),
        ]
        for record, usage in again[:_MOST_ROWS]
    ]
    head = [("", "trial"), ("n", "attempts"), ("", "ended"), ("", "attempts that came to nothing")]
    return details(
        f"<b>Tried again</b>: {plural(len(again), 'trial')} ({told})", table(head, rows, classes="compact")
    )


def _notes(report: SweepReport) -> str:
    """Return what was not learnt, which images were skipped, and what was computed unlike."""
    notes = [learning_note(each.unlearnt) for each in report.tables.values()]
    notes += [skipped_note(each.skipped) for each in report.tables.values()]
    notes.append(mixture_note(row.mixed for each in report.tables.values() for row in each.rows))
    return bullets(dict.fromkeys(prose(note) for note in notes if note is not None))
