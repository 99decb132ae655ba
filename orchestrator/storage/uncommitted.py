"""Changes of the code that no commit has: each run keeps them as a patch, so that what it ran can be had again.

``uncommitted/`` in a sweep's results has a file for each state of the code, named by its SHA-256: what ``orchestrator``
and ``specvit`` differ in from the commit in its first line. A bundle takes them along; a published study does not, for
they may say what their author did not mean to publish.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from orchestrator.ledger.provenance import Provenance, find_changes
from orchestrator.storage.remote_folder import RemoteFolder, is_url
from specvit.errors import SpecsweepError
from specvit.files.atomic import replacing
from specvit.files.regular import read_regular, reject_symlink

FOLDER_NAME = "uncommitted"
FILE_NAME = re.compile(r"[0-9a-f]{12}\.patch")
MOST_BYTES = 1 << 22
"""Of a patch; the packages have half of that."""

MOST_PATCHES = 100
"""That are kept of a sweep."""

_LOG = logging.getLogger(__name__)


def keep_patch(folder: Path, provenance: Provenance) -> None:
    """Keep what the code of a run differs in from its commit; nothing if it does not. What is wrong is a warning.

    Args:
        folder: The folder of the sweep's results.
        provenance: Of the run, just collected.
    """
    if not provenance.git_dirty:
        return
    try:
        _write(folder / FOLDER_NAME, provenance)
    except (SpecsweepError, OSError) as error:
        _LOG.warning("the changes of the code since commit %.12s are not kept: %s", provenance.git_sha, error)


def _write(folder: Path, provenance: Provenance) -> None:
    changes = find_changes()
    if changes is None:
        raise SpecsweepError("git cannot tell them")
    if not changes:
        return  # new files that are no modules
    head = f"Changes of orchestrator and specvit since commit {provenance.git_sha}, for git apply.\n\n"
    content = head.encode() + changes
    if len(content) > MOST_BYTES:
        raise SpecsweepError(f"a patch of {len(content):,} bytes; at most {MOST_BYTES:,} are kept. Commit large files")
    reject_symlink(folder)
    folder.mkdir(exist_ok=True)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:12]}.patch"
    if not path.exists() and sum(1 for _ in folder.iterdir()) >= MOST_PATCHES:
        raise SpecsweepError(f"{folder} has {MOST_PATCHES} already")
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_patches(location: str | Path) -> dict[str, bytes]:
    """Return the patches that a sweep's runs have kept, by path in the folder of its results.

    Args:
        location: Path or URL of that folder.

    Raises:
        SpecsweepError: If one cannot be read; the text names it.
    """
    if is_url(str(location)):
        store = RemoteFolder(str(location)) / FOLDER_NAME
        found = {name: store.get_bytes(name) for name in _ours(store.names())}
        return {f"{FOLDER_NAME}/{name}": content for name, content in found.items() if content is not None}
    folder = Path(location) / FOLDER_NAME
    reject_symlink(folder)
    patches = {}
    for name in _ours(tuple(path.name for path in folder.iterdir()) if folder.is_dir() else ()):
        reject_symlink(folder / name)  # in a stranger's folder it may lead to what is nobody's to share
        try:
            patches[f"{FOLDER_NAME}/{name}"] = read_regular(folder / name, most_bytes=MOST_BYTES)
        except OSError as error:
            raise SpecsweepError(f"{folder / name}: cannot be read ({error.strerror})") from error
    return patches


def _ours(names: tuple[str, ...]) -> list[str]:
    """Return the names of patches, at most as many as a sweep keeps."""
    return sorted(name for name in names if FILE_NAME.fullmatch(name))[:MOST_PATCHES]
