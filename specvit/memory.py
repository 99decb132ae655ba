"""How much memory there is."""

from __future__ import annotations

import os
from pathlib import Path

GIB = 2**30

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def physical_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_memory() -> int:
    """Return the bytes of memory of this machine, or of the container that this process is in."""
    try:
        return min(physical_memory(), int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return physical_memory()
