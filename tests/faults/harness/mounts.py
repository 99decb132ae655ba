"""File systems of one's own, in a mount namespace that ends with its commands."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path


def run_with_mounts(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount file systems, which no one else sees."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@functools.cache
def why_no_mounts() -> str:
    """Return why scripts cannot mount file systems here; empty if they can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = run_with_mounts('mount -t tmpfs -o size=64k none "$1"', Path(folder))
        except OSError as error:
            return str(error)
    return done.stderr.strip() if done.returncode else ""
