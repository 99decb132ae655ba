"""Temporary folders of a cluster of our own: sockets lie in them, whose paths must be short."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

from orchestrator.execution.capacity import ClusterError

MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket in bytes (``sun_path`` of unix(7), without the null byte)."""

MAX_FOLDER_PATH = MAX_SOCKET_PATH - len("/ray/session_2026-11-30_01-29-07_297205_1234567/sockets/plasma_store")
"""Longest path, in bytes, of a folder below which Ray's sockets have room; those of Python are shorter."""

SHORT_FOLDER = Path("/tmp")


def shorten_temporary_folder() -> None:
    """Have this process, and what it starts, use ``SHORT_FOLDER`` where ``TMPDIR`` is too long for sockets.

    Raises:
        ClusterError: If ``RAY_TMPDIR``, which is obeyed, is too long, or there is no short folder.
    """
    chosen, usual = os.environ.get("RAY_TMPDIR", ""), os.environ.get("TMPDIR", "")
    if len(os.fsencode(chosen)) > MAX_FOLDER_PATH:
        raise ClusterError(f"RAY_TMPDIR must be a path of at most {MAX_FOLDER_PATH} bytes, for sockets, not {chosen}")
    if len(os.fsencode(usual)) <= MAX_FOLDER_PATH:
        return
    what = f"TMPDIR={usual} is too long for sockets (at most {MAX_FOLDER_PATH} bytes)"
    if not os.access(SHORT_FOLDER, os.W_OK):
        raise ClusterError(f"{what}, and {SHORT_FOLDER} cannot be written: set TMPDIR or RAY_TMPDIR to a shorter path")
    logging.getLogger(__name__).warning("%s: temporary files of this run go to %s", what, SHORT_FOLDER)
    os.environ["TMPDIR"] = str(SHORT_FOLDER)
    tempfile.tempdir = None  # found anew
