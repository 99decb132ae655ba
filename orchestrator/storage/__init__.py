"""The results folder, here, on a network file system or at a URL: lock, checkpoints, commands, mirror.

Front door: ``results_folder.results_folder`` to run in, ``local_view`` to read, ``hold_lock``, ``CheckpointStore``,
``CommandInbox``.
What must hold: one driver to a folder; whenever a process dies, a result or a state of every trial is there; a store
that fails stops no sweep; nothing behind a link is written or deleted.
"""

# Lazily, since modules of this room import each other.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.storage.checkpoint_store import CheckpointStore, StateFile
    from orchestrator.storage.command_inbox import CommandInbox, send
    from orchestrator.storage.folder_lock import LockedError, hold_lock, is_held
    from orchestrator.storage.remote_folder import Location, RemoteError, RemoteFolder
    from orchestrator.storage.views import local_view

__all__ = [
    "CheckpointStore",
    "CommandInbox",
    "Location",
    "LockedError",
    "RemoteError",
    "RemoteFolder",
    "StateFile",
    "hold_lock",
    "is_held",
    "local_view",
    "send",
]

_HOMES = {
    "CheckpointStore": "checkpoint_store",
    "CommandInbox": "command_inbox",
    "Location": "remote_folder",
    "LockedError": "folder_lock",
    "RemoteError": "remote_folder",
    "RemoteFolder": "remote_folder",
    "StateFile": "checkpoint_store",
    "hold_lock": "folder_lock",
    "is_held": "folder_lock",
    "local_view": "views",
    "send": "command_inbox",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
