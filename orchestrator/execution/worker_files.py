"""Where a worker keeps the state and the weights of the trial that it runs: in the driver's folder, or in a store.

With a store, the state is fetched to a local file before training starts, and uploaded after it was saved: by a thread,
for training does not wait; a state that was saved while the last one was on its way follows it, and only the newest one
counts. A store that fails costs the upload, never the attempt. The store's packages and credentials are needed wherever
workers run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.execution.executor import Job
from orchestrator.storage.folder_lock import hold_lock, is_held
from orchestrator.storage.remote_folder import RemoteFolder
from orchestrator.trials.computation import code_digests
from specvit.config import PROTOCOL_VERSION
from specvit.data import Dataset, DataSource
from specvit.errors import SpecsweepError
from specvit.plugins import plugin_versions

if TYPE_CHECKING:
    from specvit.training.checkpoint import Checkpoint

AfterSave = Callable[[Path], None]

_PREFIX = "specsweep-attempt-"
_LEFT_BEHIND_AFTER_S = 3600.0
_TRIES_AFTER_S = (0.0, 1.0, 3.0)
_LONGEST_WAIT_S = 300.0
"""How long an attempt that has ended waits for an upload; a connection may hang."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalFiles:
    """The files of an attempt on this machine.

    Attributes:
        state: The file of its state; None = it keeps none.
        weights: Folder of its trained weights; None = they are not kept.
        after_save: To be called with the state's file whenever it was saved; returns at once.
        backbone: The file of a backbone that was trained before; None = the job names none.
    """

    state: Path | None
    weights: Path | None
    after_save: AfterSave = lambda _: None
    backbone: Path | None = None


@contextmanager
def local_files(job: Job, *, will_resume: Callable[[], bool] = lambda: False) -> Iterator[LocalFiles]:
    """Open the files that a job names; those of a store are fetched, and uploaded in the end.

    Args:
        job: The job as the driver sent it.
        will_resume: Called at the end: whether the trial is to resume one day, so that its last state is uploaded.
    """
    weights = job.weights
    state = None if job.state is None else job.state.location
    backbone = job.backbone
    files = LocalFiles(
        state if isinstance(state, Path) else None,
        weights if isinstance(weights, Path) else None,
        backbone=backbone if isinstance(backbone, Path) else None,
    )
    if not any(isinstance(place, RemoteFolder) for place in (state, weights, backbone)):
        yield files
        return
    with _temporary_folder() as folder, ExitStack() as stack:
        if isinstance(weights, RemoteFolder):
            files = replace(files, weights=folder / "weights")
            stack.callback(_upload_weights, folder / "weights", weights)
        if isinstance(backbone, RemoteFolder):
            files = replace(files, backbone=folder / backbone.name)
            _retrying(partial(backbone.parent.get, backbone.name, folder / backbone.name))
        if isinstance(state, RemoteFolder):
            files = replace(files, state=folder / state.name)
            uploader = _Uploader(state.parent)
            uploader.fetch(folder / state.name)
            files = replace(files, after_save=uploader.saved)
            # One that ends with an error may well resume elsewhere.
            stack.push(lambda kind, *_: uploader.close(is_wanted=kind is not None or will_resume()))
        yield files


def make_checkpoint(
    job: Job,
    datasets: Mapping[DataSource, Dataset],
    *,
    files: LocalFiles | None = None,
    at_stop: Callable[[], bool] = lambda: False,
) -> Checkpoint | None:
    """Return where the trial's state is, and whose: one from other data or other software would be another trial's.

    Args:
        job: The job; without a state the trial has no checkpoint.
        datasets: What the trials' data sources load.
        files: Where the state is on this machine; None = this process assists, and neither reads nor writes it.
        at_stop: Returns whether a trial that is asked to stop is to resume one day.
    """
    if job.state is None:
        return None
    import torch

    from specvit.training.checkpoint import Checkpoint

    config = job.config
    parts = (*config.sources, config.objective, *config.probes, config.treatment.comparator)
    identity = {
        "trial": job.trial_id,
        "code": code_digests(part for part in parts if part is not None),
        "data": [datasets[source].fingerprint for source in config.sources],
        "protocol": PROTOCOL_VERSION,
        "specsweep": metadata.version("specsweep"),
        "torch": torch.__version__,  # names the build too, as the package's metadata do not
        "timm": metadata.version("timm"),
        **plugin_versions(),
    }
    location = job.state.location
    files = files or LocalFiles(None, None)
    return Checkpoint(
        files.state or (location if isinstance(location, Path) else Path(location.name)),
        json.dumps(identity),
        every_s=job.state.every_s,
        max_share=job.state.max_share,
        at_stop=at_stop,
        after_save=files.after_save,
    )


class _Uploader:
    """Upload a state whenever it was saved, the newest only, in a thread."""

    def __init__(self, folder: RemoteFolder) -> None:
        self._folder = folder
        self._next: Path | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="state's upload", daemon=True)
        self._thread.start()

    def fetch(self, path: Path) -> None:
        """Fetch the state, if there is one."""
        try:
            _retrying(partial(self._folder.get, path.name, path))
        except SpecsweepError as error:
            _LOG.warning("%s; training begins anew", error)

    def saved(self, path: Path) -> None:
        """Upload a state that was just saved; returns at once."""
        # A second name for what is there now: the next save gives the first name to another file.
        link = path.with_name(f".{path.name}.upload")
        with self._changed:
            try:
                link.unlink(missing_ok=True)
                os.link(path, link)
            except OSError as error:
                _LOG.warning("%s: cannot be uploaded (%s)", path, error)
                return
            self._next = path
            self._changed.notify()

    def close(self, *, is_wanted: bool) -> None:
        """Wait for the upload that is on its way, and for the last one if it is wanted."""
        with self._changed:
            self._is_closed = True
            if not is_wanted:
                self._next = None
            self._changed.notify()
        self._thread.join(_LONGEST_WAIT_S)
        if self._thread.is_alive():
            _LOG.warning("%s: an upload of a state does not end; it is left alone", self._folder)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._is_closed)
                path, self._next = self._next, None
                if path is None:
                    return
                going = path.with_name(f".{path.name}.going")
                path.with_name(f".{path.name}.upload").replace(going)
            try:
                self._folder.put(path.name, going)
            except (SpecsweepError, OSError) as error:
                _LOG.warning("%s; training goes on, and the next state is tried", error)
            finally:
                going.unlink(missing_ok=True)


def _upload_weights(source: Path, target: RemoteFolder) -> None:
    """Upload a trained trial's weights; where that fails they stay here, for they took a training."""
    files = sorted(source.glob("*")) if source.is_dir() else []
    for file in files:
        try:
            _retrying(partial(target.put, file.name, file))
        except SpecsweepError as error:
            kept = Path(tempfile.mkdtemp(prefix="specsweep-weights-")) / file.name
            shutil.move(file, kept)
            _LOG.warning("%s; the weights stay in %s on this machine", error, kept)


def _retrying(act: Callable[[], object]) -> None:
    for pause_s in _TRIES_AFTER_S[:-1]:
        time.sleep(pause_s)
        with suppress(SpecsweepError):
            act()
            return
    time.sleep(_TRIES_AFTER_S[-1])
    act()


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Make a folder that is deleted in the end; those that killed workers have left behind are deleted too."""
    _delete_left_behind()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with hold_lock(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _delete_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.stat()
            # Not the newest: one that was just made is not locked yet.
            is_old = time.time() - status.st_mtime > _LEFT_BEHIND_AFTER_S
            if status.st_uid == os.getuid() and is_old and not is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)
