"""Which folders lie on a network file system, and where this machine has a disk of its own.

SQLite's log (WAL) needs memory that all who read and write share, which two machines never have: a ledger on a network
file system is torn for whoever looks at it from another machine. Linux names the type of the file system of every
mount in ``/proc/self/mountinfo``; elsewhere (macOS) nothing is found out, and a folder counts as local.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path

from specvit.errors import SpecsweepError

PLACE_VARIABLE = "SPECSWEEP_LEDGER"
"""Environment variable that says where ledgers are, whatever the file system: ``mirror`` or ``in-place``."""

MIRROR = "mirror"
"""On a disk of the driver's machine, mirrored to the results folder."""

IN_PLACE = "in-place"
"""In the results folder itself."""

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")

_NETWORK_TYPES = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "coda", "9p", "virtiofs", "vboxsf", "prl_fs"),
        *("lustre", "gpfs", "beegfs", "ceph", "panfs", "pvfs2", "wekafs", "wekafsio", "gfs2", "ocfs2", "glusterfs"),
    }
)
_LOCAL_FUSE = frozenset(
    {
        *("fuse.fuse-overlayfs", "fuse.bindfs", "fuse.mergerfs", "fuse.gocryptfs", "fuse.encfs", "fuse.lxcfs"),
        *("fuse.ntfs-3g", "fuse.zfs-fuse", "fuse.ext2fs", "fuse.squashfuse"),
    }
)
"""File systems in user space that lie on a disk of this machine. All others (sshfs, s3fs, gcsfuse, JuiceFS, Mountpoint,
..) and those that do not say what they are may be shared: a mirror costs little, a torn ledger much."""


def network_type(path: Path) -> str:
    """Return the type of the network file system that a path lies on, such as ``nfs4``; empty if it is none.

    Args:
        path: A file or folder; it need not exist, links on the way to it are followed.
    """
    kind = _type_of(path)
    is_shared_fuse = kind == "fuse" or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)
    return kind if kind in _NETWORK_TYPES or is_shared_fuse else ""


def forced_place() -> str:
    """Return where the environment says that ledgers are; empty if it does not say.

    Raises:
        SpecsweepError: If it says something else than ``mirror`` or ``in-place``.
    """
    place = os.environ.get(PLACE_VARIABLE, "")
    if place not in ("", MIRROR, IN_PLACE):
        raise SpecsweepError(f"{PLACE_VARIABLE}: must be {MIRROR!r}, {IN_PLACE!r} or unset, not {place!r}")
    return place


def working_root() -> Path:
    """Return the folder of this user in which working copies lie: the cache, or one of temporary files.

    The latter where homes are on a network file system, as on clusters.

    Raises:
        SpecsweepError: If both are on one, or the place for temporary files was made by somebody else.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specsweep"
    cache_type = network_type(cache)
    if not cache_type:
        return cache
    root = Path(tempfile.gettempdir()) / f"specsweep-{os.getuid()}"
    if temporary_type := network_type(root):
        raise SpecsweepError(
            f"{cache} is on {cache_type} and {root} on {temporary_type}, but a ledger needs a disk of this machine: "
            "set XDG_CACHE_HOME or TMPDIR to a folder on one"
        )
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        found = root.lstat()
    except OSError as error:
        raise SpecsweepError(f"{root}: cannot be made ({error.strerror})") from error
    # Everybody may write where temporary files lie, and the name can be guessed.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise SpecsweepError(
            f"{root}: must be a folder of yours that nobody else can write to; delete it, or set XDG_CACHE_HOME"
        )
    return root


def _type_of(path: Path) -> str:
    """Return the type of the file system that a path lies on; empty if that cannot be found out."""
    real = path.resolve()
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    longest, kind = -1, ""
    for line in lines:
        mount, _, source = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) < 5 or not source:
            continue
        point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # Of several mounts in one place the last one is seen.
        if real.is_relative_to(point) and len(point.parts) >= longest:
            longest, kind = len(point.parts), source.split(" ")[0]
    return kind
