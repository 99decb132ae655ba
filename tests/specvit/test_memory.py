from __future__ import annotations

from pathlib import Path

import pytest

from specvit import memory
from specvit.memory import peak_memory, physical_memory, reset_peak_memory, usable_memory


def test_memory_of_a_container_is_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", limit)
    whole = physical_memory()
    assert usable_memory() == whole > 1 << 27
    limit.write_text("1048576\n")
    assert usable_memory() == 1048576
    limit.write_text("max\n")
    assert usable_memory() == whole


def test_peaks_that_the_system_does_not_tell_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "folder" / "clear_refs")
    assert peak_memory() is None
    assert not reset_peak_memory()
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n")
    assert peak_memory() == 2 << 20
