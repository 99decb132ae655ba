"""Telling trackers of a sweep: a process each, which reads the ledger, so that none can hold up, slow or end a run.

The driver starts a tracker's process (``orchestrator.monitoring.tracker_process``) and holds one end of a pipe. When
that closes, since the run has ended or its driver was killed, the process tells what is left, and ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any

from pydantic import TypeAdapter, ValidationError

import orchestrator
from orchestrator.secrets import VARIABLE
from orchestrator.sweep.extending import read_sweep_file
from orchestrator.sweep.overrides import apply_overrides
from orchestrator.sweep.yaml_reader import parse_value
from orchestrator.trackers import SelectedTrackers, Tracker
from specvit.errors import ConfigError, SpecsweepError
from specvit.files.regular import reject_symlink
from specvit.messages import one_line

FINISH_S = 20.0
"""How long a run waits at its end for trackers to tell what is left."""

LOG_NAME = "specsweep.log"
"""What a tracker's package prints, in the tracker's folder."""


class TrackerProcess:
    """The process of a tracker."""

    def __init__(
        self, tracker: Tracker, *, ledger: Path, folder: Path, warn: Callable[[str], object], fresh: bool = False
    ) -> None:
        """Start it.

        Args:
            tracker: The tracker.
            ledger: The ledger that is read.
            folder: Folder of what the tracker keeps on this machine; made if it does not exist.
            warn: Called, from another thread, with the first thing that goes wrong.
            fresh: Whether to tell also what was told by processes before.

        Raises:
            SpecsweepError: If it cannot be started.
        """
        self.name = tracker.name
        self._warn, self._is_ending = warn, False
        self.log = folder / LOG_NAME
        request = {"tracker": dataclasses.asdict(tracker), "ledger": str(ledger), "folder": str(folder), "fresh": fresh}
        try:
            for place in (folder.parent, folder) if tracker.folder is None else ():
                reject_symlink(place)  # in a folder of results, which may come from others
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            with os.fdopen(os.open(self.log, flags, 0o600), "wb") as log:
                self._process = process = subprocess.Popen(
                    # Not the current folder: what lies there by a package's name is not that package.
                    [sys.executable, "-P", "-m", "orchestrator.monitoring.tracker_process"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment(),
                    start_new_session=True,  # Ctrl-C in a terminal is for the driver alone
                )
            assert process.stdin is not None
            self._input = process.stdin
            self._input.write(f"{json.dumps(request)}\n")
            self._input.flush()
        except OSError as error:
            raise SpecsweepError(f"tracker {self.name}: cannot be started: {one_line(str(error))}") from error
        self._reader = threading.Thread(target=self._read, name=f"tracker {self.name}", daemon=True)
        self._reader.start()

    def finish(self) -> None:
        """Have it tell what is left and end; returns at once."""
        with suppress(OSError):
            self._input.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; end it by force if that takes longer than ``timeout_s`` seconds.

        Returns:
            Whether all is told.
        """
        try:
            return self._process.wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            self._warn(f"tracker {self.name}: did not end within {FINISH_S:g} s, and was ended; {self._remedy}")
            return False
        finally:
            self._is_ending = True
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, SIGKILL)  # and what it has started
            self._process.wait()
            self._reader.join(timeout=1.0)

    @property
    def _remedy(self) -> str:
        return f"the next run, or 'specsweep export', tells it what is missing; see {self.log}"

    def _read(self) -> None:
        """Warn of the first thing that the process says, or of its end if it has said nothing."""
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if first:
            self._warn(f"tracker {self.name}: {one_line(first)}; the sweep is not affected; {self._remedy}")
        elif (code := self._process.wait()) != 0 and not self._is_ending:
            self._warn(f"tracker {self.name}: ended with code {code}; the sweep is not affected; {self._remedy}")


def _environment() -> dict[str, str]:
    """Return the environment of a tracker's process: this code, and no addresses of webhooks."""
    root = str(Path(orchestrator.__path__[0]).resolve().parent)
    known = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return {**known, "PYTHONPATH": os.pathsep.join(filter(None, (root, known.get("PYTHONPATH"))))}


@contextmanager
def tracking(
    trackers: Sequence[Tracker], *, ledger: Path, results: Path, warn: Callable[[str], object]
) -> Iterator[None]:
    """Report a sweep to trackers while this context is open, and what is left when it closes.

    Args:
        trackers: The trackers.
        ledger: The sweep's ledger, which stays open meanwhile.
        results: Folder of its results on this machine.
        warn: Called with one warning for each tracker that cannot be told; nothing is raised.
    """
    processes = []
    for tracker in trackers:
        try:
            processes.append(TrackerProcess(tracker, ledger=ledger, folder=tracker.folder_in(results), warn=warn))
        except SpecsweepError as error:
            warn(str(error))
    try:
        yield
    finally:
        for process in processes:
            process.finish()
        until_s = time.monotonic() + FINISH_S
        for process in processes:
            process.wait(max(0.0, until_s - time.monotonic()))


def read_tracker(name: str, target: str, overrides: Sequence[str], fields: Sequence[str]) -> Tracker:
    """Return the settings of a tracker, in a sweep file and on a command line.

    Args:
        name: Its name.
        target: A sweep file that may hold them; anything else holds none: a ledger may be a stranger's.
        overrides: ``path=value`` for the file.
        fields: ``field=value``, in place of what the file says.

    Raises:
        SpecsweepError: If a setting cannot be used.
    """
    given: dict[str, Any] = {"tracker": name}
    if Path(target).is_file() and Path(target).suffix in (".yaml", ".yml"):
        raw, _ = apply_overrides(read_sweep_file(Path(target)), overrides, name=target)
        listed = raw.get("trackers")
        found = (each for each in (listed if isinstance(listed, list) else ()) if isinstance(each, dict))
        given = next((each for each in found if each.get("tracker") == name), given)
    for text in fields:
        field, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--with {text}: must be field=value")
        given = {**given, field.strip(): parse_value(value)}
    try:
        (tracker,) = TypeAdapter(SelectedTrackers).validate_python([given])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{name}: {'.'.join(map(str, first['loc'][2:]))}: {first['msg']}") from error
    return tracker


def tell_all(tracker: Tracker, *, ledger: Path, folder: Path) -> None:
    """Report all that a ledger knows to a tracker, and wait for it as long as it takes.

    Raises:
        SpecsweepError: If it cannot be told; the text says why.
    """
    said: list[str] = []
    process = TrackerProcess(tracker, ledger=ledger, folder=folder, warn=said.append, fresh=True)
    process.finish()
    if not process.wait():
        raise SpecsweepError(said[0] if said else f"tracker {tracker.name}: was ended; see {process.log}")
