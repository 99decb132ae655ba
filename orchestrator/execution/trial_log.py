"""What a trial logs: records of the loggers that are its own become events of its attempt; and all events as lines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import specvit
from orchestrator.execution import worker_files
from orchestrator.storage import remote_folder
from orchestrator.trials.events import Event, Failed, Finished, Logged, Pruned, Reported, Started
from specvit.messages import escape_control_chars

_LOGGED = (specvit.__name__, worker_files.__name__, remote_folder.__name__, "py.warnings")
"""Loggers whose records belong to the trial that runs."""


class _LogHandler(logging.Handler):
    """A handler that forwards records."""

    def __init__(self, log: Callable[[str, str], None]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Forward one record."""
        self._log(record.levelname, record.getMessage())


@contextmanager
def forward_logs(log: Callable[[str, str], None]) -> Iterator[None]:
    """Forward what the code of a trial logs, and warns of where warnings are captured."""
    handler = _LogHandler(log)
    loggers = [logging.getLogger(name) for name in _LOGGED]
    trial, level = loggers[0], loggers[0].level
    for logger in loggers:
        logger.addHandler(handler)
    trial.setLevel(min(logging.INFO, trial.getEffectiveLevel()))  # how a training goes is information
    try:
        yield
    finally:
        trial.setLevel(level)
        for logger in loggers:
            logger.removeHandler(handler)


def event_text(event: Event) -> str | None:
    """Return an event as a text of a log for people; None of progress, of which there is too much.

    All of it is in the ledger too, and shown by ``specsweep logs``.
    """
    match event:
        case Started(worker=worker):
            text = f"attempt {event.attempt} started on {worker}"
        case Reported(step=step, metrics=metrics):
            text = f"rung at step {step}: {_metrics_text(metrics)}"
        case Logged(level=level, text=logged):
            text = logged if level == "INFO" else f"{level}: {logged}"
        case Finished(metrics=metrics, seconds=seconds):
            text = f"done after {seconds:.1f} s: {_metrics_text(metrics)}"
        case Pruned(step=step, why=why):
            text = f"pruned at step {step}{f': {why}' if why else ''}"
        case Failed(error=error, cause=cause, traceback=traceback):
            text = f"failed ({str(cause).replace('_', ' ')}): {error}\n{traceback}".rstrip()
        case _:
            return None
    return "\n".join(map(escape_control_chars, text.split("\n")))


def _metrics_text(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
