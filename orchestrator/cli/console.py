"""Printing: consoles, error messages, text for programs, and what is logged meanwhile."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from rich.console import Console

from orchestrator.sweep.problems import SweepFileError
from specvit.messages import escape_control_chars

PIPE_WIDTH = 140
"""Columns to print tables in where there is no terminal whose width could be asked for."""

_NOBODY_READS = (errno.EPIPE, errno.EIO)


class _Console(Console):
    """A console that leaves it to the command what a closed pipe means; rich would end the process with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise what was raised."""
        raise BrokenPipeError


class _OutlivingStream(io.TextIOBase):
    """Writes to stdout as long as somebody reads it, and to nobody once the pipe or the terminal is gone."""

    def __init__(self) -> None:
        self._stream: TextIO | None = sys.stdout

    def write(self, text: str) -> int:
        """Write a text."""
        with self._going_on():
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write out what is pending."""
        with self._going_on():
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of stdout."""
        return sys.stdout.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding of stdout."""
        return sys.stdout.encoding

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                raise
            self._stream = None
            discard_output()


def make_console(*, outlives_reader: bool = False) -> Console:
    """Return the console to print on; in a pipe or file it is wide enough for tables.

    Args:
        outlives_reader: Whether a closed pipe, or a terminal that is gone, is no reason to end: a run goes on.
    """
    file = cast("TextIO", _OutlivingStream()) if outlives_reader else None
    console = _Console(highlight=False, file=file)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = _Console(highlight=False, width=PIPE_WIDTH, file=file)
    return console


def discard_output() -> None:
    """Let what is still to be written to stdout go nowhere: nobody reads it, and it would raise once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_closed_pipe(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised for, is that the reader of a pipe has had enough."""
    while error is not None:
        if isinstance(error, BrokenPipeError):
            return True
        error = error.__cause__ or error.__context__
    return False


def complain(error: Exception | str) -> None:
    """Print the message of an error, or a warning, to stderr."""
    # Problems of a sweep file open with their place, as a compiler's do; other messages with the program's name.
    prefix = "" if isinstance(error, SweepFileError) else "specsweep: "
    print(f"{prefix}{escape_control_chars(str(error))}", file=sys.stderr)


def print_raw(text: str) -> None:
    """Print a text for programs, or in a format of its own; it is out when this returns.

    Programs get it as it is. On a terminal, what would steer it is written out: a CSV of results that came from
    others may hold anything.
    """
    print(escape_control_chars(text) if sys.stdout.isatty() else text, flush=True)


class _ConsoleHandler(logging.Handler):
    """A handler that prints log lines on a console."""

    def __init__(self, console: Console, title: str) -> None:
        super().__init__()
        self._console = console
        self._title = title

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        self._console.print(f"{self._title}: {escape_control_chars(record.getMessage())}", markup=False, soft_wrap=True)


@contextmanager
def log_to_console(console: Console, logger: logging.Logger, *, title: str, level: int) -> Iterator[None]:
    """Print what is logged: how far a load is, or what happens to a cluster."""
    handler, before = _ConsoleHandler(console, title), logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
