"""The attempts at a trial, human-readable: everything on record, with nothing left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.ledger.attempts import Attempt, FailedTrial, TrialName
from orchestrator.reports.rendering.formatting import format_metric
from orchestrator.trials.records import Cause
from specvit.messages import escape_control_chars, one_line

_STYLES = {
    "pending": "dim",
    "running": "cyan",
    "done": "green",
    "pruned": "yellow",
    "failed": "red",
    "lost": "magenta",
    "superseded": "dim",
}
_INDENT = "  "


def render_history(name: TrialName, attempts: Sequence[Attempt]) -> RenderableType:
    """Render a trial and the given attempts at it; print it with ``soft_wrap``, so that lines stay whole.

    Args:
        name: The trial.
        attempts: What to show of it.
    """
    left = "" if name.in_sweep else "; the sweep file no longer has it"
    lines = [Text.assemble((one_line(name.label), "bold"), (f"  {one_line(name.trial_id)}{left}", "dim"))]
    if not attempts:
        lines.append(Text("no attempt has begun"))
    for attempt in attempts:
        lines += [Text(), *_attempt_lines(attempt)]
    return Group(*lines)


def render_failures(failed: Sequence[FailedTrial]) -> RenderableType:
    """Render a line for every trial that failed in some attempt, with its last failure and where it stands now."""
    if not failed:
        return Text("no attempt has failed")
    return Group(*map(_failure_line, failed))


def cause_text(cause: Cause | None) -> str:
    """Return the cause of a failure in words: ``gpu memory``."""
    return "cause not known" if cause is None else str(cause).replace("_", " ")


def _failure_line(trial: FailedTrial) -> Text:
    now = "" if trial.state == "failed" else f", now {trial.state}"
    tries = "1 attempt" if trial.num_attempts == 1 else f"{trial.num_attempts} attempts"
    return Text.assemble(
        (one_line(trial.trial_id[:12]), "dim"),
        f"  {one_line(trial.label)}: {trial.num_failed} of {tries} failed{now}; "
        f"attempt {trial.attempt}, {cause_text(trial.cause)}: {one_line(trial.error)}",
    )


def _attempt_lines(attempt: Attempt) -> Iterator[Text]:
    cause = f" ({cause_text(attempt.cause)})" if attempt.cause is not None else ""
    worker = f" on {one_line(attempt.worker)}" if attempt.worker else ""
    worker += f", {one_line(attempt.device)}" if attempt.device else ""
    yield Text.assemble((f"attempt {attempt.number}: {attempt.state}{cause}", _STYLES[attempt.state]), worker)
    times = {"begun": attempt.submitted_at, "started": attempt.started_at, "ended": attempt.ended_at}
    yield _indented(", ".join(f"{what} {at or '-'}" for what, at in times.items()))
    took = "" if attempt.seconds is None else f", {attempt.seconds:.1f} s"
    gpus = f", {attempt.gpus:g} GPUs" if attempt.gpus else ""
    yield _indented(f"step {attempt.step}/{attempt.steps or '?'}{took}{gpus}")
    for report in attempt.reports:
        yield _indented(f"rung at step {report.step}: {_metrics_text(report.metrics)}")
    if attempt.metrics:
        yield _indented(f"result: {_metrics_text(attempt.metrics)}")
    for line in attempt.logs:
        yield _indented(f"{line.logged_at} {one_line(line.level)}: {line.text}")
    if attempt.error is not None:
        what = ("error: ", "red") if attempt.state == "failed" else (f"{attempt.state}: ", _STYLES[attempt.state])
        yield Text.assemble(_INDENT, what, one_line(attempt.error))
    if attempt.traceback:
        yield _indented(attempt.traceback.rstrip("\n"))


def _metrics_text(metrics: Mapping[str, float]) -> str:
    return ", ".join(format_metric(name, value, digits=2) for name, value in metrics.items())


def _indented(text: str) -> Text:
    return Text("\n".join(_INDENT + line for line in escape_control_chars(text).split("\n")))
