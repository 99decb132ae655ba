"""What a trial logs: records of the loggers that are its own become events of its attempt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import specvit
from orchestrator.execution import worker_files
from orchestrator.storage import remote_folder

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
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
