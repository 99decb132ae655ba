"""Orders to a running sweep, given by another process: a file each in the folder of its results.

Whoever gives an order writes its file in one go; the driver takes it within a second, deletes it, and acts. An order
says what is to be done in plain words; whatever else such a file holds, nothing in it is executed.
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

FOLDER_NAME = "orders"
"""Folder of the orders, in the folder of a sweep's results."""

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


def give(folder: Path, order: Command) -> Path:
    """Give an order to the sweep whose results lie in ``folder``.

    Returns:
        The order's file; it is gone when the order has been taken.

    Raises:
        SpecsweepError: If the file cannot be written, or the folder of orders is a link.
    """
    name = next(name for name, kind in _KINDS.items() if isinstance(order, kind))
    path = folder / FOLDER_NAME / f"{time.time_ns()}-{uuid.uuid4().hex}.json"
    reject_symlink(path.parent)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise SpecsweepError(f"{path.parent}: cannot be made ({error.strerror})") from error
    write_atomically(path, json.dumps({"order": name, **asdict(order)}))
    return path


class CommandInbox:
    """Take the orders that are given to a running sweep."""

    def __init__(self, folder: Path) -> None:
        """Take the folder of the sweep's results; orders that nobody took are dropped: they were to another run.

        Raises:
            SpecsweepError: If the folder of orders is a link: the files behind it would be deleted.
        """
        self._folder = folder / FOLDER_NAME
        reject_symlink(self._folder)
        self._looked_s = time.monotonic()
        self.clear()

    def take(self) -> Sequence[Command]:
        """Return the orders given since the last call, the oldest first; looks at most twice a second."""
        now = time.monotonic()
        if now - self._looked_s < _PERIOD_S:
            return ()
        self._looked_s = now
        orders = []
        for path in self._files():
            order = _read(path)
            with suppress(OSError):
                path.unlink()
                if order is not None:
                    orders.append(order)
        return orders

    def clear(self) -> None:
        """Drop the orders that nobody took, and the folder."""
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
    """Return the order in a file; None if it is none, or somebody else has taken it."""
    try:
        content = json.loads(read_regular(path, most_bytes=_MOST_BYTES))
        kind = _KINDS[content.pop("order")]
        if kind is Cancel:
            return Cancel()
        trial_ids = content["trial_ids"]
        if not isinstance(trial_ids, list) or not all(isinstance(trial_id, str) for trial_id in trial_ids):
            return None
        return kind(tuple(trial_ids))  # type: ignore[call-arg]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
