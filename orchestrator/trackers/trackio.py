"""Trackio: an SQLite file on this machine, or a Hugging Face Space."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from orchestrator.trackers.base import NOT_STARTED, TrackedRun, Tracker, TrackerClient
from specvit.settings import settings

_FOLDER_VARIABLE = "TRACKIO_DIR"
_REMOTE_VARIABLES = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


@settings
class Trackio(Tracker):
    """Log to Trackio, with the sweep as the project: on this machine, unless a Space is named."""

    name: ClassVar[str] = "trackio"
    package: ClassVar[str] = "trackio"
    tracker: Literal["trackio"] = "trackio"

    project: str | None = None
    """Name of the project; none given = the name of the sweep."""
    space: str | None = None
    """Hugging Face Space to log to, ``OWNER/NAME``, with the token of ``hf auth login`` or HF_TOKEN; none given = the
    environment variables of Trackio's own, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL, else this machine."""

    def connect(self, folder: Path, *, sweep: str) -> TrackerClient:
        """Import the package, which reads its folder from the environment."""
        if self.folder is not None or _FOLDER_VARIABLE not in os.environ:
            os.environ[_FOLDER_VARIABLE] = str(folder)
        if self.space is None and not any(os.environ.get(name) for name in _REMOTE_VARIABLES):
            os.environ["HF_HUB_OFFLINE"] = "1"  # it would ask the hub for the user's name
        import trackio

        return _Project(trackio, project=self.project or sweep, space=self.space)

    def destination(self, folder: Path, *, sweep: str) -> str:
        """Return the Space, or the command that shows the folder."""
        if self.space is not None:
            return f"the Space {self.space}"
        place = folder if self.folder is not None else os.environ.get(_FOLDER_VARIABLE, folder)
        project = shlex.quote(self.project or sweep)
        return f"{_FOLDER_VARIABLE}={shlex.quote(str(place))} trackio show --project {project}"


class _Project(TrackerClient):
    """The runs of a project. The package has one run open at a time: another one that gets a point is resumed."""

    def __init__(self, trackio: Any, *, project: str, space: str | None) -> None:
        self._trackio, self._project, self._space = trackio, project, space
        self._current: tuple[str, Any] = ("", None)

    def begin(self, run: TrackedRun, *, at: float) -> int:  # noqa: ARG002
        """Begin or resume a run."""
        last = self._open(run)._initial_last_step
        return NOT_STARTED if last is None else int(last)

    def log(self, run: TrackedRun, metrics: Mapping[str, float], *, step: int, at: float) -> None:  # noqa: ARG002
        """Add a point."""
        self._open(run).log(dict(metrics), step=step)

    def end(self, run: TrackedRun, state: str, *, at: float) -> None:  # noqa: ARG002
        """Finish the run if it is open; what became of the trial it has no place for."""
        if self._current[0] == run.key:
            self.close()

    def close(self) -> None:
        """Finish the run that is open."""
        if self._current[1] is not None:
            self._current[1].finish()
        self._current = ("", None)

    def _open(self, run: TrackedRun) -> Any:
        if self._current[0] != run.key:
            opened = self._trackio.init(
                project=self._project,
                name=f"{run.name} {run.key[:6]}",  # by which it is found again
                group=run.group or run.sweep,
                space_id=self._space,
                config=run.parameters,
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
            self._current = (run.key, opened)
        return self._current[1]
