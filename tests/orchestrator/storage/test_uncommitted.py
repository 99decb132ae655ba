"""Patches of code that no commit has: kept by a run, read by a bundle, and never in a run's way."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.ledger.provenance import Provenance, collect_provenance
from orchestrator.storage import uncommitted
from orchestrator.storage.uncommitted import keep_patch, read_patches
from specvit.errors import SpecsweepError

SHA = "0123456789" * 4
DIRTY = replace(collect_provenance(), git_sha=SHA, git_dirty=True)
CHANGES = b"diff --git a/specvit/x.py b/specvit/x.py\n"
PATCH = f"Changes of orchestrator and specvit since commit {SHA}, for git apply.\n\n".encode() + CHANGES
NAME = f"uncommitted/{hashlib.sha256(PATCH).hexdigest()[:12]}.patch"

Change = Callable[[bytes | None], None]


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Change:
    """Change the code of this process."""
    return lambda changes: monkeypatch.setattr(uncommitted, "find_changes", lambda: changes)


def test_a_run_keeps_each_state_of_the_code_once(change: Change, tmp_path: Path) -> None:
    change(CHANGES)
    for _ in range(2):
        keep_patch(tmp_path, DIRTY)
    assert read_patches(tmp_path) == read_patches(f"file://{tmp_path}") == {NAME: PATCH}
    change(CHANGES + b"more\n")
    keep_patch(tmp_path, DIRTY)
    assert len(read_patches(tmp_path)) == 2


@pytest.mark.parametrize("provenance", [replace(DIRTY, git_dirty=False), replace(DIRTY, git_sha=None, git_dirty=None)])
def test_code_of_a_commit_or_of_no_checkout_leaves_nothing(
    provenance: Provenance, change: Change, tmp_path: Path
) -> None:
    change(CHANGES)
    keep_patch(tmp_path, provenance)
    change(b"")
    keep_patch(tmp_path, DIRTY)
    assert list(tmp_path.iterdir()) == []
    assert read_patches(tmp_path) == read_patches(f"file://{tmp_path}") == {}


def test_what_cannot_be_kept_is_a_warning(
    change: Change, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warned(changes: bytes | None) -> str:
        change(changes)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            keep_patch(tmp_path, DIRTY)
        return caplog.text.partition("0123456789012345678901234567890123456789"[:12])[2]

    assert "are not kept: git cannot tell them" in warned(None)
    size = f"{len(PATCH) - len(CHANGES) + (1 << 22):,}"
    assert f"a patch of {size} bytes; at most 4,194,304 are kept" in warned(b"x" * (1 << 22))
    (tmp_path / "uncommitted").symlink_to(tmp_path)
    assert "must not be a link" in warned(CHANGES)
    (tmp_path / "uncommitted").unlink()
    (tmp_path / "uncommitted").write_text("")
    assert "File exists" in warned(CHANGES)
    (tmp_path / "uncommitted").unlink()
    monkeypatch.setattr(uncommitted, "MOST_PATCHES", 1)
    assert warned(CHANGES) == ""
    assert "uncommitted has 1 already" in warned(CHANGES + b"more\n")
    assert warned(CHANGES) == ""
    assert list(read_patches(tmp_path)) == [NAME]


def test_other_files_are_not_taken_and_links_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "uncommitted"
    folder.mkdir()
    for name in ("x.patch", ".0123456789ab.patch", "0123456789ab.patch.1"):
        (folder / name).write_text("")
    assert read_patches(tmp_path) == {}
    path = folder / "0123456789ab.patch"
    path.mkdir()
    with pytest.raises(SpecsweepError, match=r"0123456789ab\.patch: cannot be read"):
        read_patches(tmp_path)
    path.rmdir()
    path.symlink_to(folder / "x.patch")
    with pytest.raises(SpecsweepError, match=r"0123456789ab\.patch: must not be a link"):
        read_patches(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "uncommitted").symlink_to(folder)
    with pytest.raises(SpecsweepError, match="uncommitted: must not be a link"):
        read_patches(tmp_path / "other")
