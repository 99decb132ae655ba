from __future__ import annotations

from pathlib import Path

import pytest

from specvit import memory
from specvit.memory import physical_memory, usable_memory


def test_memory_of_a_container_is_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", limit)
    whole = physical_memory()
    assert usable_memory() == whole > 1 << 27
    limit.write_text("1048576\n")
    assert usable_memory() == 1048576
    limit.write_text("max\n")
    assert usable_memory() == whole
