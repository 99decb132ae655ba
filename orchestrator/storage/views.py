"""Mirrored ledgers, fetched into a folder of this machine to be read: those at a URL, and those of shared folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.ledger.ledger import LEDGER_NAME
from orchestrator.storage.driver import Driver, find_driver
from orchestrator.storage.ledger_mirror import POINTER_NAME, fetch_ledger
from orchestrator.storage.remote_folder import RemoteError, RemoteFolder, is_url
from orchestrator.storage.results_folder import cache_folder, has_mirror, read_note
from specvit.files.atomic import write_atomically

STUDIES = "studies"
"""Folder of the published studies, beside the runs in a folder of results."""

_VIEWED_NAME = "viewed.json"
"""What is known of a view, in its folder."""


def local_view(location: str | Path, *, name: str | None = None) -> Path:
    """Turn a place of results into a local folder to read ledgers from; a path is mostly given back as it is.

    Of a URL, the mirrored ledger is fetched into a cache: of a folder of one sweep's results that sweep's, of a folder
    that holds a folder per sweep that of one of them. So is the mirrored ledger of one sweep's folder here. The view of
    a running sweep is as old as the last upload. Where nothing is mirrored, the view is an empty folder.

    Args:
        location: Path or URL.
        name: The sweep that is asked for; None = the location's own.

    Raises:
        RemoteError: If the store cannot be used, or what is mirrored is missing or damaged.
    """
    if not is_url(str(location)):
        path = Path(location) / (name or "")
        if not has_mirror(path) or (name is not None and not is_file_name(name)):
            return Path(location)
        path = path.resolve()
        view = cache_folder("views", f"file://{path.parent}") / (name or path.name)
        _fetch_view(RemoteFolder(f"file://{path}"), view, path)
        return view if name is None else view.parent
    folder = RemoteFolder(str(location))
    view = cache_folder("views", folder.url)
    with _cannot_be_written(view):
        view.mkdir(parents=True, exist_ok=True)
    if name is None and folder.get_bytes(POINTER_NAME) is not None:
        _fetch_view(folder, view)
    elif name is not None and is_file_name(name):
        _fetch_view(folder / name, view / name)
    return view


def folder_names(location: str | Path) -> list[str]:
    """Return the names of the folders in one that holds a folder per sweep; there may be others among them.

    Raises:
        RemoteError: If the store cannot be used.
        OSError: If the folder cannot be read.
    """
    if is_url(str(location)):
        return [name for name in RemoteFolder(str(location)).names(folders=True) if is_file_name(name)]
    root = Path(location)
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def sweep_view(location: str | Path, name: str) -> Path | None:
    """Return a local folder to read the ledger of one sweep from; None if it has none.

    Raises:
        RemoteError: If the store cannot be used, or what is mirrored is missing or damaged.
        OSError: If the sweep's folder cannot be read.
    """
    view = local_view(location, name=name) / name
    return view if (view / LEDGER_NAME).exists() else None


def folder_of_view(view: Path) -> Path:
    """Return the folder of results that a view shows; the view itself if it is none, or that of a URL."""
    return Path(_viewed(view).get("path") or view)


def location_of_view(view: Path, target: str, results: str) -> str | Path:
    """Return the path or URL of the results that a view shows, of what a user has named.

    Args:
        view: A folder that holds a ledger, the view of results elsewhere or the results themselves.
        target: Path, URL or name of the sweep.
        results: Path or URL of the folder that holds one folder per sweep.
    """
    if is_url(target):
        return target
    return f"{results}/{view.name}" if is_url(results) and is_view(view) else folder_of_view(view)


def is_view(folder: Path) -> bool:
    """Return whether a folder is the view of mirrored results, which has to be fetched again to see what is new."""
    return bool(_viewed(folder))


def driver_of_view(view: Path) -> Driver | None:
    """Return who held the results when their view was fetched; None if nobody did, or if this is no view."""
    driver = _viewed(view).get("driver")
    return None if driver is None else Driver(**driver)


def is_file_name(name: str) -> bool:
    """Return whether this may be a name of a sweep; others would lead out of the folder that they are put in."""
    return "/" not in name and "\0" not in name and name not in {"", ".", ".."}


def _fetch_view(folder: RemoteFolder, view: Path, path: Path | None = None) -> None:
    """Bring the view of one sweep up to date; it goes if nothing is mirrored any more."""
    ledger = view / LEDGER_NAME
    with _cannot_be_written(view):
        view.mkdir(parents=True, exist_ok=True)
    known = _viewed(view)
    pointer = fetch_ledger(folder, ledger, known_sha256=known.get("sha256", ""))
    if pointer is None:
        ledger.unlink(missing_ok=True)
    driver = find_driver(folder)
    note = {
        "sha256": pointer.sha256 if pointer else "",
        "driver": driver and asdict(driver),
        "path": str(path or ""),
    }
    write_atomically(view / _VIEWED_NAME, json.dumps(note))


def _viewed(view: Path) -> dict[str, Any]:
    """Return what is known here of a view; nothing if it is none."""
    try:
        note = json.loads(read_note(view / _VIEWED_NAME))
        return {key: note[key] for key in ("sha256", "driver", "path")}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


@contextmanager
def _cannot_be_written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RemoteError(f"{folder}: cannot be made ({error.strerror})") from error
