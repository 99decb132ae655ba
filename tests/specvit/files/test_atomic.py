from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from specvit.files.atomic import remove_leftovers


def test_leftovers_of_processes_that_are_gone_are_removed_and_nothing_else(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [f".table.md.{gone.pid}", f".curves.png.{gone.pid}", f".table.csv.{10**30}"]
    others = [f".table.md.{os.getpid()}", "table.md", f".notes.txt.{gone.pid}", f"x.table.md.{gone.pid}", ".table.md.x"]
    for name in (*left, *others):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(others)
