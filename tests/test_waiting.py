"""A wait ends with what it waits for, and fails when nothing moves."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from . import waiting
from .waiting import StalledError, run_to_end, wait_for, wait_for_end

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]
WORKS = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.6: pass\nprint('done')"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PATIENCE_S": 0.4, "LOOK_PERIOD_S": 0.05, "LEAST_CPU_S": 0.01}.items():
        monkeypatch.setattr(waiting, name, value)


def test_a_wait_returns_what_came() -> None:
    numbers = itertools.count()
    assert wait_for(lambda: next(numbers) // 3) == 1


def test_a_wait_fails_when_nothing_moves() -> None:
    with pytest.raises(StalledError, match="saw nothing move"):
        wait_for(lambda: False)
    with pytest.raises(StalledError, match="last seen: still"):
        wait_for(lambda: False, making_progress=lambda: "still")


def test_a_wait_goes_on_for_as_long_as_something_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LIMIT_S", 1.2)
    numbers = itertools.count()
    with pytest.raises(StalledError, match="waited for 1 s"):
        wait_for(lambda: False, making_progress=lambda: next(numbers))


def test_a_process_is_waited_for_while_it_computes() -> None:
    assert run_to_end(WORKS).stdout == "done\n"
    with subprocess.Popen(SLEEPS) as process:
        with pytest.raises(StalledError):
            wait_for_end(process)
        process.kill()
