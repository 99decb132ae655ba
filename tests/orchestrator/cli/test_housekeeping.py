"""Which sweeps a results folder holds, and what of them is deleted: nothing without a word, and nothing of others."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.run import describe
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.events import Failed, Finished
from orchestrator.trials.trial import Trial

Command = Callable[..., subprocess.CompletedProcess[str]]
AN_HOUR_AGO_S = 4000.0


@pytest.fixture
def finish(tmp_path: Path, write_sweep: Callable[..., Path]) -> Callable[..., tuple[Trial, ...]]:
    """Write the ledger of a sweep of 8 trials, the first ``done`` of which are done and the next ``failed``."""

    def write(name: str, *, done: int = 0, failed: int = 0, fingerprint: str = "f00d") -> tuple[Trial, ...]:
        sweep = load_sweep(write_sweep(tmp_path, name))
        trials = expand(sweep)
        info = describe(sweep, trials, {})
        fingerprints = {trial.group_id: f"{fingerprint}+other" for trial in trials}
        with Ledger.open(tmp_path / "results" / name / LEDGER_NAME) as ledger:
            ledger.register(
                type(info)(info.name, info.question, info.text, info.metrics, info.seeds, fingerprints),
                trials,
                collect_provenance(),
            )
            for number, trial in enumerate(trials[: done + failed]):
                key = (trial.trial_id, ledger.begin_attempt(trial.trial_id))
                ledger.record(Finished(*key, {}, 1.0, 1.0) if number < done else Failed(*key, "boom", ""))
        return trials

    return write


@pytest.fixture
def old_cache(tmp_path: Path) -> Callable[..., Path]:
    """Write a cache of decoded images of four kilobytes that is an hour old."""

    def write(digits: str, about: object) -> Path:
        folder = tmp_path / "cache" / f"image_folder-32-{digits * 16}"
        folder.mkdir(parents=True)
        (folder / "train_images.npy").write_bytes(bytes(4000))
        (folder / "dataset.json").write_text(json.dumps(about))
        os.utime(folder, (folder.stat().st_mtime - AN_HOUR_AGO_S,) * 2)
        return folder

    return write


def test_list_shows_every_sweep_as_it_stands(
    tmp_path: Path, command: Command, finish: Callable[..., tuple[Trial, ...]]
) -> None:
    empty = command("list")
    assert (empty.returncode, empty.stdout) == (2, "")
    finish("whole", done=8)
    finish("part", done=3, failed=2)
    finish("broken", done=6, failed=2)
    finish("under-way", done=1)
    (tmp_path / "results" / "torn").mkdir()
    (tmp_path / "results" / "torn" / LEDGER_NAME).write_text("no ledger at all")
    with hold_lock(tmp_path / "results" / "under-way"):
        found = {sweep["name"]: sweep for sweep in json.loads(command("list", "--json").stdout)}
        listed = command("list", "results")
    states = {name: (sweep["state"], sweep["trials"]) for name, sweep in found.items()}
    assert states == {
        "whole": ("complete", 8),
        "part": ("stopped", 8),
        "broken": ("failed", 8),
        "under-way": ("running", 8),
        "torn": ("unreadable", 0),
    }
    assert found["part"]["counts"] == {"waiting": 3, "done": 3, "failed": 2}
    lines = {line.split()[0]: line for line in listed.stdout.splitlines()[1:] if not line.startswith(" ")}
    assert "3 waiting, 3 done, 2 failed of 8" in lines["part"]
    assert "Does a tiny sweep run?" in lines["whole"]
    assert found["whole"]["last_run"][:16].replace("T", " ") in lines["whole"]
    assert lines["torn"].split() == ["torn", "unreadable"]
    assert listed.returncode == 0
    assert listed.stderr.startswith("specsweep: torn cannot be read: results/torn/ledger.sqlite")


@pytest.fixture
def unreadable(tmp_path: Path, finish: Callable[..., tuple[Trial, ...]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of results with two sweeps that can be read, and one of each kind that cannot."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "results"
    for name in ("a", "newer", "torn", "tiny"):
        finish(name, done=3)
    with closing(sqlite3.connect(root / "newer" / LEDGER_NAME)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with (root / "torn" / LEDGER_NAME).open("r+b") as file:
        file.truncate(5000)
    (root / "folder" / LEDGER_NAME).mkdir(parents=True)
    pointer = {"generation": 3, "sha256": "5" * 64, "host": "there", "pid": 7, "at": "noon"}
    for name, text in {"mirror": json.dumps(pointer), "pointer": "[]"}.items():
        (root / name).mkdir()
        (root / name / "ledger.json").write_text(text)
    return root


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_list_says_in_a_line_which_sweep_cannot_be_read_and_lists_all_others(
    unreadable: Path, prefix: str, command: Command
) -> None:
    # At a URL there are mirrored ledgers alone.
    bad = {"mirror", "pointer"} | (set() if prefix else {"folder", "newer", "torn"})
    good = set() if prefix else {"a", "tiny"}
    shown = command("list", f"{prefix}{unreadable}")
    assert shown.returncode == (0 if good else 2)
    lines = shown.stderr.splitlines()
    assert {line.removeprefix("specsweep: ").partition(" cannot be read: ")[0] for line in lines} == bad
    assert any("mirror/ledger.3.5555555555555555.sqlite: is missing, which ledger.json names" in line for line in lines)
    rows = {line.split()[0]: line.split()[1] for line in shown.stdout.splitlines()[1:]}
    assert rows == dict.fromkeys(bad, "unreadable") | dict.fromkeys(good, "stopped")
    as_json = command("list", f"{prefix}{unreadable}", "--json")
    assert (as_json.returncode, as_json.stderr) == (shown.returncode, shown.stderr)
    assert {each["name"]: bool(each["error"]) for each in json.loads(as_json.stdout)} == {
        **dict.fromkeys(bad, True),
        **dict.fromkeys(good, False),
    }


def test_a_plan_passes_over_sweeps_that_cannot_be_read_and_says_so_and_delete_does_not(
    tmp_path: Path,
    unreadable: Path,
    command: Command,
    write_sweep: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_sweep(tmp_path, "fresh")  # of the same groups, none of which it has run itself
    planned = command("plan", "fresh.yaml", "--json")
    assert (planned.returncode, json.loads(planned.stdout)["pending"]) == (0, 8)
    told = {message.partition(": times and noise of its trials are not used")[0] for message in caplog.messages}
    assert told == {"folder", "mirror", "newer", "pointer", "torn"}
    assert len(caplog.messages) == len(told)
    refused = command("delete", "--unused", "--yes", "--cache", "none")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (unreadable / "a" / LEDGER_NAME).exists()


def test_a_dry_run_is_a_plan(tmp_path: Path, command: Command, write_sweep: Callable[..., Path]) -> None:
    write_sweep(tmp_path)
    dry = command("run", "tiny.yaml", "--dry-run", "--slots", "2")
    assert (dry.returncode, dry.stdout) == (0, command("plan", "tiny.yaml", "--slots", "2").stdout)
    assert "8 trials, 8 to run" in dry.stdout
    assert not (tmp_path / "results").exists()


def test_a_sweep_is_deleted_once_that_is_confirmed_and_files_of_others_stay(
    tmp_path: Path, command: Command, finish: Callable[..., tuple[Trial, ...]]
) -> None:
    trials = finish("tiny", done=8)
    folder = tmp_path / "results" / "tiny"
    weights = folder / "weights" / trials[0].trial_id
    weights.mkdir(parents=True)
    (weights / "backbone.safetensors").write_bytes(bytes(2_000_000))
    (folder / "table.md").write_text("x" * 4)
    (folder / "report.html").write_text("x" * 6)
    (folder / "figures").mkdir()
    (folder / "figures" / "forest-column.svg").write_text("x" * 7)
    (folder / "figures" / "forest of mine.svg").write_text("mine")
    (folder / "notes.txt").write_text("mine")
    asked = command("delete", "tiny")  # no terminal
    assert asked.returncode == 2
    assert "weights 2.0 MB" in asked.stderr
    assert "There is nobody to ask; give --yes" in asked.stderr
    with hold_lock(folder):
        assert command("delete", "tiny.yaml", "--yes").returncode == 3
    assert (folder / LEDGER_NAME).exists()
    deleted = command("delete", "tiny.yaml", "--yes")
    assert deleted.returncode == 0
    assert deleted.stdout.startswith("deleted: results/tiny, ledger ")
    assert "tables 10 bytes, weights 2.0 MB, figures 7 bytes: 2." in deleted.stdout
    left = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))]
    assert left == ["figures", "figures/forest of mine.svg", "notes.txt"]
    for target in ("tiny", "absent", str(tmp_path)):
        assert command("delete", target, "--yes").returncode == 2
    finish("tiny")
    (folder / "notes.txt").unlink()
    (folder / "figures" / "forest of mine.svg").unlink()
    assert command("delete", "results/tiny", "--yes").returncode == 0
    assert not folder.exists()


def test_nothing_behind_a_link_is_deleted(
    tmp_path: Path, command: Command, finish: Callable[..., tuple[Trial, ...]]
) -> None:
    finish("tiny")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "model.safetensors").write_text("mine")
    folder = tmp_path / "results" / "tiny"
    (folder / "weights").symlink_to(mine)
    (tmp_path / "results" / "other").symlink_to(folder)
    assert command("delete", "other", "--yes").returncode == 2
    assert command("delete", "tiny", "--yes").returncode == 0
    assert (mine / "model.safetensors").read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == ["weights"]


def test_unused_is_what_no_sweep_refers_to(
    tmp_path: Path,
    command: Command,
    finish: Callable[..., tuple[Trial, ...]],
    old_cache: Callable[..., Path],
) -> None:
    trials = finish("tiny", done=1)
    folder = tmp_path / "results" / "tiny"
    done, waiting, absent = trials[0].trial_id, trials[1].trial_id, "0" * 64
    states = {each: folder / "checkpoints" / f"{each}.safetensors" for each in (done, waiting, absent)}
    weights = {each: folder / "weights" / each / "backbone.safetensors" for each in (done, absent)}
    for path in (*states.values(), *weights.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1500))
    used, unused = old_cache("a", {"fingerprint": "f00d"}), old_cache("b", {"fingerprint": "cafe"})
    torn = old_cache("c", [])
    young = old_cache("d", {"fingerprint": "cafe"})
    os.utime(young)
    other = tmp_path / "cache" / "huggingface"
    other.mkdir()
    arguments = ("delete", "--unused", "--cache", str(tmp_path / "cache"))
    before = set(tmp_path.rglob("*"))
    assert command(*arguments).returncode == 2
    with hold_lock(folder):
        assert command(*arguments, "--yes").returncode == 3
    assert all(path.exists() for path in before)
    deleted = command(*arguments, "--yes")
    assert deleted.returncode == 0
    freed = "deleted: states 3.0 kB, weights 1.5 kB, decoded images 8.0 kB: 12.5 kB in all"
    assert deleted.stdout.splitlines()[-1] == freed
    gone = {path for path in before if not path.exists()}
    assert gone == {
        *(states[done], states[absent], weights[absent], weights[absent].parent),
        *(each for folder in (unused, torn) for each in (folder, folder / "train_images.npy", folder / "dataset.json")),
    }
    assert used.is_dir()
    assert command(*arguments).stdout == "nothing is unused\n"


def test_delete_wants_one_thing_to_delete(command: Command) -> None:
    for arguments in ((), ("tiny", "--unused")):
        assert command("delete", *arguments).returncode == 2
    refused = command("delete", "tiny", "--results", "s3://bucket/results")
    assert "results at a URL are deleted by the tools of their store" in refused.stderr
