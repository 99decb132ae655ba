"""Where numbers come from: the code, the libraries, the machine and the command of one run of the driver."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from pydantic import ConfigDict, with_config

from orchestrator.secrets import hide_argument
from orchestrator.trials.computation import Computation, code_digests
from orchestrator.trials.resources import usable_cores
from specvit.memory import GIB, physical_memory
from specvit.plugins import plugin_versions

_PACKAGES = (
    *("specsweep", "torch", "torchvision", "timm", "ray", "optuna"),
    *("numpy", "scipy", "pandas", "pydantic"),
)
_ROOT = Path(__file__).resolve().parents[2]
"""Folder that holds the packages."""
_GIT_TIMEOUT_S = 5.0
_GPU_TIMEOUT_S = 5.0
_PATCH_OPTIONS = (
    *("--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--relative"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
"""So that a patch is the same whatever the user's settings of git are, and its paths are those of ``root``."""


@with_config(ConfigDict(extra="forbid"))  # for those that are read from ledgers
@dataclass(frozen=True)
class Provenance:
    """What one run of the driver ran on.

    Attributes:
        started_at: When it was collected, UTC, ISO 8601.
        argv: The command line.
        host: Name of the machine.
        git_sha: Commit of the checkout that the code runs from; None if it runs from an installed copy.
        git_dirty: Whether that code differs from the commit; None without a commit.
        versions: Package name, ``python`` among them, to version; a package that is absent has no entry.
        platform: Operating system and architecture.
        cpu: Model name of the processor.
        num_cores: Cores that this process may use.
        memory_gib: Physical memory, or None where the system does not tell.
        gpus: Name of every NVIDIA GPU.
        sweep_file: The sweep file, an absolute path; None of runs before it was recorded.
        code: Package that computes trials to the digest of its sources; empty of runs before it was recorded.
    """

    started_at: str
    argv: tuple[str, ...]
    host: str
    git_sha: str | None
    git_dirty: bool | None
    versions: Mapping[str, str]
    platform: str
    cpu: str
    num_cores: int
    memory_gib: float | None
    gpus: tuple[str, ...]
    sweep_file: str | None = None
    code: Mapping[str, str] = field(default_factory=dict)

    def computation(self, device: str = "") -> Computation:
        """Return what computes the trials of this run on a device."""
        return Computation.make(self.code, self.versions, device)


def collect_provenance(sweep_file: Path | None = None, parts: Iterable[object] = ()) -> Provenance:
    """Collect the provenance of this process. What cannot be found out is left empty; nothing fails.

    Args:
        sweep_file: What it runs.
        parts: Data sources, recipes, comparators and probes that it uses.
    """
    git_sha, git_dirty = find_commit(_ROOT)
    return Provenance(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        argv=tuple(map(hide_argument, sys.argv)),
        host=socket.gethostname(),
        git_sha=git_sha,
        git_dirty=git_dirty,
        versions=_versions(),
        platform=platform.platform(),
        cpu=cpu_name(),
        num_cores=usable_cores(),
        memory_gib=_memory_gib(),
        gpus=_gpus(),
        sweep_file=None if sweep_file is None else str(sweep_file.resolve()),
        code=code_digests(parts),
    )


def find_commit(root: Path) -> tuple[str | None, bool | None]:
    """Find the commit of the packages in ``root``, and whether they differ from it.

    New files count as a difference, since other files may import them. A copy installed into an
    environment that lies inside somebody's repository is not part of that repository, so the package's own
    file has to be tracked.

    Args:
        root: Folder that holds ``orchestrator`` and ``specvit``.

    Returns:
        ``(sha, dirty)``, or ``(None, None)`` if git does not know the code.
    """
    if _git(root, "ls-files", "--error-unmatch", "orchestrator/__init__.py") is None:
        return None, None
    sha = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", "orchestrator", "specvit")
    if sha is None or changes is None:
        return None, None
    return sha.strip(), bool(changes.strip())


def find_changes(root: Path = _ROOT) -> bytes | None:
    """Return what the packages in ``root`` have changed since their commit, as a patch that ``git apply`` takes there.

    New modules are among it, since other modules may import them; other new files, and all outside of the packages, are
    not. Binary files are in git's own form.

    Returns:
        The patch; None if git does not know the code, or cannot tell.
    """
    with tempfile.TemporaryDirectory() as folder:
        # An index of our own: new files show in a patch only if an index knows them, and the user's is left alone.
        environment = os.environ | {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        for arguments in (["read-tree", "HEAD"], ["add", "--intent-to-add", "--", "orchestrator/*.py", "specvit/*.py"]):
            if _output(_git_command(root, *arguments), timeout_s=_GIT_TIMEOUT_S, environment=environment) is None:
                return None
        diff = _git_command(root, "diff", *_PATCH_OPTIONS, "HEAD", "--", "orchestrator", "specvit")
        return _output(diff, timeout_s=_GIT_TIMEOUT_S, environment=environment)


def _git(root: Path, *arguments: str) -> str | None:
    return _text(_git_command(root, *arguments), timeout_s=_GIT_TIMEOUT_S)


def _git_command(root: Path, *arguments: str) -> list[str]:
    return ["git", "-C", str(root), "--no-optional-locks", *arguments]


def _text(command: list[str], *, timeout_s: float) -> str | None:
    """Return what ``command`` prints as text; likewise."""
    output = _output(command, timeout_s=timeout_s)
    return None if output is None else output.decode(errors="replace")


def _output(
    command: list[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> bytes | None:
    """Return what ``command`` prints, or None if it is absent, slow or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout_s, check=True, stdin=subprocess.DEVNULL, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions | plugin_versions()


def cpu_name() -> str:
    """Return the model of this machine's processor, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(physical_memory() / GIB, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _gpus() -> tuple[str, ...]:
    names = _text(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], timeout_s=_GPU_TIMEOUT_S)
    return tuple(line.strip() for line in (names or "").splitlines() if line.strip())
