"""Whatever a sweep file holds, it is planned or refused: exit code 0 or 2, a message with its place, no trace.

1,000 files are tried, the same in every run; with ``SPECSWEEP_FAULTS=long`` 10,000, others every time.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator.cli import main

from .sweep_files import MARKER, Case, cases

IS_LONG = os.environ.get("SPECSWEEP_FAULTS") == "long"
FAULTS = settings(
    max_examples=10_000 if IS_LONG else 1_000,
    derandomize=not IS_LONG,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
HANGS_AFTER_S = 60
"""A plan that takes longer is taken for one that never ends; most take hundredths of a second."""

FILE = "sweep.yaml"
PLACE = re.compile(rf"{re.escape(FILE)}(:\d+)*: |--set .*: ", re.DOTALL)


class HungError(BaseException):
    """Signal a plan that does not end; no handler of ``Exception`` may catch it."""


@dataclass(frozen=True)
class Ended:
    """Hold how a command ended and what it printed."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Interrupt what does not end."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise HungError(f"no end after {HANGS_AFTER_S} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(HANGS_AFTER_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def plan(case: Case, *arguments: str) -> Ended:
    """Run ``specsweep plan`` in this process and in this folder, on streams as strict as a terminal's."""
    Path(FILE).write_bytes(case.content)
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")]
    argv = ["specsweep", "plan", FILE, *arguments, *(part for text in case.overrides for part in ("--set", text))]
    before = sys.argv
    sys.argv = argv
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]), watched():
            with pytest.raises(SystemExit) as end:
                main()
            for stream in streams:
                stream.flush()
    finally:
        sys.argv = before
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    assert isinstance(end.value.code, int)
    return Ended(end.value.code, out, err)


def check(case: Case) -> Ended:
    """Plan, and hold the outcome against what is promised of every one."""
    ended = plan(case)
    assert ended.code in (0, 2), ended.err
    assert "Traceback" not in ended.err
    if ended.code == 2:
        assert not ended.out
        assert all(PLACE.match(line) for line in ended.err.splitlines()), ended.err
        assert ended.err.strip()
    else:
        assert ended.out
        assert not ended.err
    assert sorted(os.listdir()) == ["results", FILE]
    assert not os.listdir("results")
    Path(FILE).unlink()
    return ended


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder that holds an empty results folder, without a network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    return tmp_path


def test_any_sweep_file_is_planned_or_refused(folder: Path) -> None:
    codes: Counter[int] = Counter()

    @FAULTS
    @given(case=cases())
    def plan_one(case: Case) -> None:
        codes[check(case).code] += 1

    plan_one()
    assert min(codes[0], codes[2]) >= FAULTS.max_examples / 20, "hardly any file is planned, or hardly any is refused"
