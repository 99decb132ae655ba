"""Commands to a running sweep, sent by another process: a file each in the folder of its results.

The sender writes a file in one go; the driver receives it within a second, deletes it, and acts. A command says what
is to be done in plain words; nothing else that such a file may hold is executed.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from specvit.errors import SpecsweepError
from specvit.files.atomic import write_atomically
from specvit.files.regular import read_regular, reject_symlink

FOLDER_NAME = "commands"
"""Folder of the commands, in the folder of a sweep's results."""

_PERIOD_S = 0.5

_MOST_BYTES = 1 << 24
"""Room for the ids of two hundred thousand trials."""


@dataclass(frozen=True)
class Cancel:
    """Stop the run, as Ctrl-C would: running trials save their states, and the next run goes on."""


@dataclass(frozen=True)
class Prune:
    """End trials for good: running ones before their next step, waiting ones at once."""

    trial_ids: tuple[str, ...]


@dataclass(frozen=True)
class Retry:
    """Try trials again that have failed, or that were pruned."""

    trial_ids: tuple[str, ...]


Command = Cancel | Prune | Retry
_KINDS: Mapping[str, type[Command]] = {"cancel": Cancel, "prune": Prune, "retry": Retry}


def send(folder: Path, command: Command) -> Path:
    """Send a command to the sweep whose results lie in ``folder``.

    Returns:
        The command's file; it is gone when the command has been received.

    Raises:
        SpecsweepError: If the file cannot be written, or the folder of commands is a link.
    """
    name = next(name for name, kind in _KINDS.items() if isinstance(command, kind))
    path = folder / FOLDER_NAME / f"{time.time_ns()}-{uuid.uuid4().hex}.json"
    reject_symlink(path.parent)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise SpecsweepError(f"{path.parent}: cannot be made ({error.strerror})") from error
    write_atomically(path, json.dumps({"command": name, **asdict(command)}))
    return path


class CommandInbox:
    """The commands to a running sweep, on the side of its driver."""

    def __init__(self, folder: Path) -> None:
        """Take the folder of the sweep's results; commands in it are dropped: they were to another run.

        Raises:
            SpecsweepError: If the folder of commands is a link: the files behind it would be deleted.
        """
        self._folder = folder / FOLDER_NAME
        reject_symlink(self._folder)
        self._looked_s = time.monotonic()
        self.clear()

    def receive(self) -> Sequence[Command]:
        """Return the commands sent since the last call, the oldest first; looks at most twice a second."""
        now = time.monotonic()
        if now - self._looked_s < _PERIOD_S:
            return ()
        self._looked_s = now
        commands = []
        for path in self._files():
            command = _read(path)
            with suppress(OSError):
                path.unlink()
                if command is not None:
                    commands.append(command)
        return commands

    def clear(self) -> None:
        """Drop the commands that were not received, and the folder."""
        for path in self._files():
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        # A folder that has become a link since is not ours. What is no file there is left alone.
        if self._folder.is_symlink() or not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.glob("*.json") if path.is_file())


def _read(path: Path) -> Command | None:
    """Return the command in a file; None if it is none, or is gone."""
    try:
        content = json.loads(read_regular(path, most_bytes=_MOST_BYTES))
        kind = _KINDS[content.pop("command")]
        if kind is Cancel:
            return Cancel()
        trial_ids = content["trial_ids"]
        if not isinstance(trial_ids, list) or not all(isinstance(trial_id, str) for trial_id in trial_ids):
            return None
        return kind(tuple(trial_ids))  # type: ignore[call-arg]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
