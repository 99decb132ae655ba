"""Weights & Biases: online, or files on this machine that ``wandb sync`` uploads."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from orchestrator.trackers.base import TrackedRun, Tracker, TrackerClient
from specvit.settings import settings

_MODE_VARIABLE = "WANDB_MODE"
_QUIET: Mapping[str, object] = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "host": "",
}
"""Settings by which it reads nothing of the machine, the code or the terminal; some versions lack some of them."""


@settings
class WeightsAndBiases(Tracker):
    """Log to Weights & Biases, with the sweep as the group; the key comes from WANDB_API_KEY or ``wandb login``."""

    name: ClassVar[str] = "wandb"
    package: ClassVar[str] = "wandb"
    tracker: Literal["wandb"] = "wandb"

    project: str | None = None
    """Name of the project; none given = the name of the sweep."""
    entity: str | None = None
    """User or team of the project; none given = that of the key."""
    mode: Literal["online", "offline"] | None = None
    """``offline`` writes files to ``folder``, for ``wandb sync``; none given = the environment variable WANDB_MODE,
    else ``online``."""

    def mode_now(self) -> str:
        """Return the mode that holds: the file's, else the environment's."""
        return self.mode or os.environ.get(_MODE_VARIABLE) or "online"

    def connect(self, folder: Path, *, sweep: str) -> TrackerClient:
        """Import the package; runs connect one by one."""
        os.environ["WANDB_SILENT"] = "true"
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        chosen = {"mode": self.mode_now(), "root_dir": str(folder), **_QUIET}
        known = wandb.Settings.model_fields
        quiet = wandb.Settings(**{name: value for name, value in chosen.items() if name in known})
        return _Project(wandb, folder, quiet, project=self.project or sweep, entity=self.entity)

    def destination(self, folder: Path, *, sweep: str) -> str:
        """Return the project, or the command that uploads the files."""
        if self.mode_now() != "online":
            return f"wandb sync {shlex.quote(str(folder / 'wandb'))}/offline-run-*"
        return f"wandb project {'/'.join(filter(None, (self.entity, self.project or sweep)))}"


class _Project(TrackerClient):
    """The runs of a project; as many are open at a time as trials run."""

    def __init__(self, wandb: Any, folder: Path, quiet: Any, *, project: str, entity: str | None) -> None:
        self._wandb, self._folder, self._quiet = wandb, folder, quiet
        self._project, self._entity = project, entity
        self._runs: dict[str, Any] = {}

    def begin(self, run: TrackedRun, *, at: float) -> int:  # noqa: ARG002
        """Begin or resume a run; files of one that was not uploaded give way to those that begin now."""
        if self._quiet.mode == "offline":
            for old in self._folder.glob(f"wandb/offline-run-*-{run.key}"):
                if not old.is_symlink():
                    shutil.rmtree(old)
        opened = self._runs[run.key] = self._wandb.init(
            project=self._project,
            entity=self._entity,
            id=run.key,
            name=run.name,
            group=run.sweep,
            job_type=run.role,
            config=run.parameters,
            resume="allow",
            reinit="create_new",
            settings=self._quiet,
        )
        return int(opened.starting_step) - 1

    def log(self, run: TrackedRun, metrics: Mapping[str, float], *, step: int, at: float) -> None:
        """Add a step of the history."""
        self._runs[run.key].log({**metrics, "_timestamp": at}, step=step)

    def end(self, run: TrackedRun, state: str, *, at: float) -> None:  # noqa: ARG002
        """Finish the run, with what became of the trial in its summary."""
        opened = self._runs.pop(run.key)
        opened.summary["state"] = state
        opened.finish(exit_code=int(state in ("failed", "interrupted")))
