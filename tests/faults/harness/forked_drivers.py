"""Drivers that start in milliseconds: forked from a process that has imported everything (``driver_server``)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SCRIPT = Path(__file__).with_name("driver_server.py")
REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Site:
    """Hold where a sweep is driven: its file, its results, and what is written about its drivers beside them."""

    root: Path
    file: Path

    @property
    def folder(self) -> Path:
        """Return the folder of the sweep's results."""
        return self.root / "results"

    @property
    def journal(self) -> Path:
        """Return the file that has a line for every step that a stand-in computed."""
        return self.root / "journal.txt"

    @property
    def log(self) -> Path:
        """Return the file with what drivers wrote to stderr."""
        return self.root / "log.txt"


class DriverServer:
    """Start drivers, kill them, and wait for their end; a context manager."""

    def __init__(self, sweep: Mapping[str, Any]) -> None:
        """Start the server; it imports what driving ``sweep`` takes."""
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = os.environ | one_thread | {"PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, SCRIPT.parent)))}
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(sweep)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, site: Site, **wishes: Any) -> int:
        """Start a driver; return its process. What can be wished for, see ``driver_server``."""
        places = {"folder": site.folder, "file": site.file, "journal": site.journal, "log": site.log}
        return self._ask({name: str(path) for name, path in places.items()} | {"trials": "in step"} | wishes)

    def wait(self, pid: int) -> int:
        """Wait until a driver has ended; return its exit code, negative for a signal."""
        return self._ask({"wait": pid})

    def kill(self, pid: int) -> int:
        """Kill a driver if it has not ended; return its exit code. Until then its number is nobody else's."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def run(self, site: Site, **wishes: Any) -> int:
        """Run a driver to its end; return its exit code."""
        return self.wait(self.start(site, **wishes))

    def _ask(self, request: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server of drivers has ended"
        return int(json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
