"""Links and pipes in the place of what a run writes to, reads and deletes: replaced or refused, never followed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.storage.folder_lock import hold_lock

from .hostile_results import Command, forge, look, run_sweep


@pytest.mark.parametrize("name", ["commands", "checkpoints", "weights"])
def test_a_folder_of_results_that_is_a_link_is_refused_and_what_lies_behind_it_stays(
    name: str, command: Command, results: Path, victims: Path
) -> None:
    shutil.rmtree(results / name, ignore_errors=True)
    (results / name).symlink_to(victims)
    ended = run_sweep(command)
    assert (ended.returncode, f"{name}: must not be a link" in ended.stderr) == (2, True)
    look(command, results)


def test_a_command_is_not_sent_through_a_link(command: Command, results: Path, victims: Path) -> None:
    (results / "commands").symlink_to(victims)
    with hold_lock(results):
        assert command("cancel", results).returncode == 2


def test_commands_that_are_links_pipes_or_huge_are_not_obeyed_and_harm_nothing(
    command: Command, unrun: Path, victims: Path
) -> None:
    (unrun / "commands").mkdir()
    (unrun / "commands" / "1.json").symlink_to(victims / "notes.json")
    (unrun / "commands" / "2.json").symlink_to("/dev/zero")
    os.mkfifo(unrun / "commands" / "3.json")
    with (unrun / "commands" / "4.json").open("wb") as file:
        file.truncate(1 << 36)  # takes no room on the disk, and all of the memory
    assert run_sweep(command).returncode == 0


def test_files_of_results_that_are_links_are_replaced_not_followed(
    command: Command, unrun: Path, victims: Path
) -> None:
    names = ("table.md", "table.csv", "curves.csv", "curves.png", "report.html", "sweep.yaml", "environment.json")
    for name in names:
        (unrun / name).unlink()
        (unrun / name).symlink_to(victims / "thesis.tex")
        # The name under which it is written first can be foreseen too.
        (unrun / f".{name}.{os.getpid()}").symlink_to(victims / "thesis.tex")
    assert run_sweep(command).returncode == 0
    assert not any((unrun / name).is_symlink() for name in names)
    assert json.loads((unrun / "environment.json").read_text())["command"].startswith("specsweep run")


def test_diagnostics_that_are_a_link_are_replaced_not_followed(
    command: Command, results: Path, victims: Path
) -> None:
    trial = "(SELECT trial_id FROM trials)"
    forge(results / "ledger.sqlite", f"INSERT INTO diagnostics VALUES ({trial}, 1, 0, 'norm1.in', 'cls_norm', 1.5)")
    (results / "diagnostics.csv").symlink_to(victims / "thesis.tex")
    assert command("curves", results).returncode == 0
    assert (results / "diagnostics.csv").read_text().endswith(",0,norm1.in,cls_norm,1.5\n")


def test_a_note_of_a_view_that_is_a_pipe_is_not_waited_for(results: Path, command: Command) -> None:
    os.mkfifo(results / "viewed.json")
    assert command("status", results).returncode == 0
