"""Printing: consoles, error messages, text for programs, and what is logged meanwhile."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from orchestrator.sweep.problems import SweepFileError
from specvit.messages import escape_control_chars

PIPE_WIDTH = 140
"""Columns to print tables in where there is no terminal whose width could be asked for."""


class _Console(Console):
    """A console that leaves it to the command what a closed pipe means; rich would end the process with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise what was raised."""
        raise BrokenPipeError


def make_console() -> Console:
    """Return the console to print on; in a pipe or file it is wide enough for tables."""
    console = _Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = _Console(highlight=False, width=PIPE_WIDTH)
    return console


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


@contextmanager
def ending_with_the_pipe() -> Iterator[None]:
    """End the command quietly where the program that reads its output has had enough, as ``head`` has.

    Raises:
        typer.Exit: With code 0, if so.
    """
    try:
        yield
    except BrokenPipeError as error:
        # What is still in the buffer would raise once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from error


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
