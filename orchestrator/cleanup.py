"""What ``delete`` does: find what a sweep has left on the disk, or what no sweep refers to, and delete it.

Only files of ours are found, by their names; nothing behind a link is touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.reports import curves, environment
from orchestrator.reports.diagnostics import csv_file as diagnostics_csv
from orchestrator.reports.figures import paper
from orchestrator.reports.page.page import PAGE_NAME
from orchestrator.reports.per_trial import curves_csv, metrics_csv, sweep_data, sweep_json, trials_csv
from orchestrator.reports.rendering import interaction_text
from orchestrator.scheduling.jobs import weights_name
from orchestrator.storage import checkpoint_store, command_inbox, uncommitted
from orchestrator.storage.folder_lock import LOCK_NAME, LockedError, hold_lock
from orchestrator.storage.ledger_mirror import POINTER_NAME, SNAPSHOT_NAME
from orchestrator.storage.remote_folder import RemoteFolder
from orchestrator.storage.remote_lock import LOCK_NAME as REMOTE_LOCK_NAME
from orchestrator.storage.results_folder import MOVED_NAME, has_mirror, local_copy
from orchestrator.storage.views import folder_names, folder_of_view, sweep_view
from orchestrator.trackers.base import FOLDER_NAME as TRACKERS_FOLDER
from orchestrator.trials.records import TrialRecord
from specvit import kept_weights
from specvit.errors import SpecsweepError
from specvit.files.regular import reject_symlink

DEFAULT_CACHE = Path("~/.cache/specsweep")
"""Where sources keep decoded images unless ``data.cache_folder`` says otherwise."""

_OWN_FILES = (
    *(LEDGER_NAME, f"{LEDGER_NAME}-wal", f"{LEDGER_NAME}-shm", f"{LEDGER_NAME}-wal.left"),
    *(MOVED_NAME, f"{MOVED_NAME}-wal"),
    *("table.md", "table.csv", interaction_text.CSV_NAME, curves_csv.CSV_NAME, curves.FIGURE_NAME),
    *(diagnostics_csv.CSV_NAME, "diagnostics.png", PAGE_NAME, metrics_csv.CSV_NAME),
    *(trials_csv.CSV_NAME, sweep_json.JSON_NAME, sweep_data.SWEEP_COPY_NAME, environment.ENVIRONMENT_NAME),
)
_OWN_FOLDERS = (
    *(checkpoint_store.FOLDER_NAME, kept_weights.FOLDER_NAME, command_inbox.FOLDER_NAME, TRACKERS_FOLDER),
    uncommitted.FOLDER_NAME,
)
_STATE = re.compile(r"\.?(?P<trial_id>[0-9a-f]{64})\.safetensors(\.[0-9a-f]+)?")
_WEIGHTS = re.compile(r"([A-Za-z0-9@+=.,_-]+-)?([0-9a-f]{12}|[0-9a-f]{64})")
"""A trial's folder of weights, those of older versions too."""
_CACHE = re.compile(r"\.?[a-z_]+-[0-9]+-[0-9a-f]{16}")
_SETTLED_S = 3600.0
"""Caches that are younger may be of a sweep that has no ledger yet."""


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be deleted: its path, its bytes, and ``what`` it is, human-readable."""

    path: Path
    num_bytes: int
    what: str


def find_sweep(folder: Path) -> list[Removable]:
    """Return what a sweep has left in the folder of its results; files of others there are left alone.

    Raises:
        SpecsweepError: If the folder is a link, or holds no ledger.
    """
    reject_symlink(folder)
    if not (folder / LEDGER_NAME).is_file() and not has_mirror(folder):
        raise SpecsweepError(f"{folder}: holds no ledger, so it is no sweep's; nothing is deleted")
    whats = {checkpoint_store.FOLDER_NAME: "states", kept_weights.FOLDER_NAME: "weights", TRACKERS_FOLDER: "trackers"}
    whats[uncommitted.FOLDER_NAME] = "patches"
    found = [_removable(folder / name, "ledger" if name.startswith("ledger.") else "tables") for name in _OWN_FILES]
    found += [_removable(folder / name, whats.get(name, "commands")) for name in _OWN_FOLDERS]
    drawn = [path for path in _entries(folder / paper.FOLDER_NAME) if paper.FILE_NAME.fullmatch(path.name)]
    found += [_removable(path, "figures") for path in drawn]
    if has_mirror(folder):
        snapshots = [path for path in _entries(folder) if SNAPSHOT_NAME.fullmatch(path.name)]
        found += [_removable(path, "ledger") for path in (folder / POINTER_NAME, *snapshots)]
        found.append(_removable(local_copy(RemoteFolder(f"file://{folder.resolve()}")), "copy on this machine"))
    return [each for each in found if each is not None]


def delete_sweep(folder: Path, found: Sequence[Removable]) -> bool:
    """Delete what ``find_sweep`` has found, and the folder if nothing else is in it; return whether it is gone.

    Raises:
        LockedError: If a run holds it.
        SpecsweepError: If something cannot be deleted.
    """
    with _hold(folder):
        _delete(found)
        (folder / LOCK_NAME).unlink(missing_ok=True)
    for empty in (folder / paper.FOLDER_NAME, folder):
        with suppress(OSError):
            empty.rmdir()
    return not folder.exists()


def find_unused(results_root: Path, cache: Path | None = None) -> dict[Path | None, list[Removable]]:
    """Return what no sweep refers to: states and weights by the folder of the sweep; decoded images under None.

    Images that were decoded within the last hour are left: their sweep may be about to begin.

    Args:
        results_root: Folder that holds one folder per sweep.
        cache: Where decoded images are; None = ``DEFAULT_CACHE``.

    Raises:
        SpecsweepError: If a ledger cannot be read: what it refers to is not known then.
    """
    found: dict[Path | None, list[Removable]] = {}
    used: set[str] = set()
    for view in filter(None, (sweep_view(results_root, name) for name in folder_names(results_root))):
        with Ledger.read(view / LEDGER_NAME) as ledger:
            records, with_result, info = ledger.records(with_reports=False), ledger.with_result(), ledger.sweep()
        ids = {record.trial.trial_id for record in records}
        used |= {part for text in info.data_fingerprints.values() for part in text.split("+")}
        folder = folder_of_view(view)
        found[folder] = [*_unused_states(folder, ids - with_result), *_unused_weights(folder, records)]
    found[None] = list(_unused_caches((cache or DEFAULT_CACHE).expanduser(), used))
    return {folder: each for folder, each in found.items() if each}


def delete_unused(found: dict[Path | None, list[Removable]]) -> None:
    """Delete what ``find_unused`` has found.

    Raises:
        LockedError: If a run holds one of the sweeps; nothing of any is deleted then.
        SpecsweepError: If something cannot be deleted.
    """
    with ExitStack() as stack:
        for folder in found:
            if folder is not None:
                stack.enter_context(_hold(folder))
        for each in found.values():
            _delete(each)


@contextmanager
def _hold(folder: Path) -> Iterator[None]:
    """Lock a folder of results, whose ledger may be mirrored.

    Raises:
        LockedError: If a run holds it, or may hold it: one that is silent, on another machine.
    """
    with hold_lock(folder):
        if has_mirror(folder) and (folder / REMOTE_LOCK_NAME).exists():
            raise LockedError(
                f"{folder}: a run holds these results, or was killed; end it or run it again, or delete them by hand"
            )
        yield


def _unused_states(folder: Path, waiting: set[str]) -> Iterator[Removable]:
    for path in _entries(folder / checkpoint_store.FOLDER_NAME):
        match = _STATE.fullmatch(path.name)
        if match is not None and match["trial_id"] not in waiting:
            yield from _known(path, "states")


def _unused_weights(folder: Path, records: Sequence[TrialRecord]) -> Iterator[Removable]:
    used = {file.path.partition("/")[0] for record in records for file in record.weights}
    used |= {name for each in records for name in (each.trial.trial_id, weights_name(each.trial))}
    for path in _entries(folder / kept_weights.FOLDER_NAME):
        if _WEIGHTS.fullmatch(path.name) and path.is_dir() and path.name not in used:
            yield from _known(path, "weights")


def _unused_caches(cache: Path, used: set[str]) -> Iterator[Removable]:
    for path in _entries(cache):
        if _CACHE.fullmatch(path.name) and path.is_dir() and time.time() - path.stat().st_mtime > _SETTLED_S:
            try:
                fingerprint = json.loads((path / "dataset.json").read_text(encoding="utf-8"))["fingerprint"]
            except (OSError, ValueError, KeyError, TypeError):
                fingerprint = None  # half of one, which a process that was killed has left
            if fingerprint not in used:
                yield from _known(path, "decoded images")


def _entries(folder: Path) -> list[Path]:
    return [] if folder.is_symlink() or not folder.is_dir() else sorted(folder.iterdir())


def _known(path: Path, what: str) -> Iterator[Removable]:
    removable = _removable(path, what)
    if removable is not None:
        yield removable


def _removable(path: Path, what: str) -> Removable | None:
    """Return a file or folder with its bytes; None if it is not there, or a link."""
    if path.is_symlink() or not path.exists():
        return None
    files = [path] if path.is_file() else [Path(root, name) for root, _, names in os.walk(path) for name in names]
    return Removable(path, sum(file.lstat().st_size for file in files), what)


def _delete(found: Iterable[Removable]) -> None:
    for each in found:
        try:
            if each.path.is_dir():
                shutil.rmtree(each.path)
            else:
                each.path.unlink(missing_ok=True)
        except OSError as error:
            raise SpecsweepError(f"{error.filename or each.path}: cannot be deleted ({error.strerror})") from error
