"""TensorBoard: event files, a folder a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from orchestrator.trackers.base import NOT_STARTED, TrackedRun, Tracker, TrackerClient
from specvit.settings import settings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_SUFFIX = ".specsweep"
"""What the names of our event files end with."""


@settings
class TensorBoard(Tracker):
    """Write event files for ``tensorboard --logdir``: scalars by step, and hyper-parameters."""

    name: ClassVar[str] = "tensorboard"
    package: ClassVar[str] = "tensorboard"
    tracker: Literal["tensorboard"] = "tensorboard"

    def connect(self, folder: Path, *, sweep: str) -> TrackerClient:  # noqa: ARG002
        """Write to the folder."""
        return _EventFiles(folder)

    def destination(self, folder: Path, *, sweep: str) -> str:  # noqa: ARG002
        """Return the command that shows the folder."""
        return f"tensorboard --logdir {shlex.quote(str(folder))}"


class _EventFiles(TrackerClient):
    """The event files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def begin(self, run: TrackedRun, *, at: float) -> int:  # noqa: ARG002
        """Begin the file of a run anew, in place of one of before, so that no point is there twice."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        place = self._folder / run.path
        for old in place.glob(f"*{_SUFFIX}"):
            old.unlink()
        # A TensorBoard that has read the old file drops its points from this step on.
        writer = SummaryWriter(str(place), purge_step=0, filename_suffix=_SUFFIX)
        _, start, _ = hparams(run.parameters, {})  # type: ignore[no-untyped-call]
        writer._get_file_writer().add_summary(start)  # type: ignore[no-untyped-call]
        self._writers[run.key] = writer
        return NOT_STARTED

    def log(self, run: TrackedRun, metrics: Mapping[str, float], *, step: int, at: float) -> None:
        """Add scalars."""
        writer = self._writers[run.key]
        for name, value in metrics.items():
            writer.add_scalar(name, value, step, walltime=at)
        writer.flush()

    def end(self, run: TrackedRun, state: str, *, at: float) -> None:
        """Add what became of the trial, as text."""
        writer = self._writers.pop(run.key)
        writer.add_text("state", state, walltime=at)
        writer.close()
