"""Bundles: what is in one, and that one ledger makes the same bytes whenever and wherever."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.bundle import FILES, files_of_folder, files_of_ledger, pack, read_bundle, write_bundle
from orchestrator.ledger.ledger import Ledger
from orchestrator.storage.uncommitted import MOST_PATCHES
from orchestrator.trials.events import Finished, Reported
from orchestrator.trials.trial import Trial
from specvit.diagnostics.measurement import Measurement
from specvit.errors import SpecsweepError

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "results" / "studies" / "learning"


@pytest.fixture
def recorded(ledger: Ledger, trials: tuple[Trial, ...]) -> Ledger:
    """Return a ledger with a trial that is done, with a rung and a measurement."""
    trial_id = trials[0].trial_id
    attempt = ledger.begin_attempt(trial_id)
    ledger.record(Reported(trial_id, attempt, 2, {"knn_top1": 40.0}))
    measured = (Measurement(0, "norm1.in", "patch_patch_cosine", 0.5),)
    ledger.record(Finished(trial_id, attempt, {"knn_top1": 50.0}, 1.0, 1.0, measured))
    return ledger


def test_a_bundle_has_the_tables_and_what_they_follow_from(recorded: Ledger, tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny.zip", files_of_ledger(recorded))
    names = [
        *("curves.csv", "diagnostics.csv", "environment.json", "metrics.csv", "sweep.json", "sweep.yaml"),
        *("table.csv", "table.md", "trials.csv"),
    ]
    with zipfile.ZipFile(tmp_path / "tiny.zip") as archive:
        members = archive.infolist()
        assert [member.filename for member in members] == ["MANIFEST", *names]
        assert {(member.date_time, member.external_attr >> 16) for member in members} == {
            ((1980, 1, 1, 0, 0, 0), 0o100644)
        }
        assert archive.read("sweep.yaml").decode() == recorded.sweep().text
        assert b'"specvit": "' in archive.read("environment.json")
    files, digests = read_bundle(tmp_path / "tiny.zip")
    assert digests == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert set(names) <= set(FILES)


def test_common_tools_check_the_manifest(recorded: Ledger, tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny.zip", files_of_ledger(recorded))
    shutil.unpack_archive(tmp_path / "tiny.zip", tmp_path / "unpacked")
    check = ["sha256sum", "--strict", "-c", "MANIFEST"]
    ended = subprocess.run(check, cwd=tmp_path / "unpacked", capture_output=True, text=True, check=True)
    assert ended.stdout.count(": OK") == 9


def test_the_format_is_the_same_for_every_version_of_python() -> None:
    """Pin the bytes of a small bundle, which are those of Python 3.6 to 3.13: they may change with ``FORMAT`` alone."""
    content = pack({"table.md": b"# x\n", "sweep.json": b"{}\n"})
    assert content[30:30 + 8 + 21] == b"MANIFEST# specsweep bundle 1\n"
    assert hashlib.sha256(content).hexdigest() == "ae7b818bd240f06e1bc6cbbf55539e695ebb54ba72e6be89db05540ef5061e85"


def test_a_ledger_makes_the_same_bytes_in_another_time_zone(
    recorded: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pack(files_of_ledger(recorded))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        with Ledger.read(recorded.path) as ledger:
            assert pack(files_of_ledger(ledger)) == first
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.long
@pytest.mark.parametrize(
    "variables", [{"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "1"}, {"TZ": "America/Lima", "LC_ALL": "C"}]
)
def test_a_ledger_makes_the_same_bytes_in_another_process(
    variables: dict[str, str], recorded: Ledger, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "here.zip", files_of_ledger(recorded))
    code = "import sys; from orchestrator.cli.app import main; main()"
    command = [sys.executable, "-c", code, "bundle", str(recorded.path.parent), "-o", "there.zip"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    subprocess.run(command, cwd=tmp_path, env=environment, umask=0o077, check=True)
    assert (tmp_path / "there.zip").read_bytes() == (tmp_path / "here.zip").read_bytes()


def test_patches_of_the_code_are_taken_along_and_their_readers_named(
    recorded: Ledger, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    patch = "uncommitted/0123456789ab.patch"
    (recorded.path.parent / "uncommitted").mkdir()
    (recorded.path.parent / patch).write_bytes(b"diff\n")
    ended = command("bundle", str(recorded.path.parent))
    said = f"with changes of the code that no commit had, for all who get it to read: {patch}"
    assert ended.stdout.splitlines()[1:] == [said]
    assert read_bundle(tmp_path / "tiny.zip")[0][patch] == b"diff\n"
    shutil.unpack_archive(tmp_path / "tiny.zip", tmp_path / "unpacked")
    check = ["sha256sum", "--strict", "-c", "MANIFEST"]
    ended = subprocess.run(check, cwd=tmp_path / "unpacked", capture_output=True, text=True, check=True)
    assert ended.stdout.count(": OK") == 10
    ended = command("verify", "tiny.zip")
    assert ended.stdout.startswith("tiny.zip: 10 files, 8 trials: every SHA-256 is that of the manifest")


def test_a_bundle_of_as_many_patches_as_are_kept_can_be_read(tmp_path: Path) -> None:
    files = dict.fromkeys(FILES, b"") | {f"uncommitted/{i:012x}.patch": b"" for i in range(MOST_PATCHES)}
    write_bundle(tmp_path / "x.zip", files)
    assert read_bundle(tmp_path / "x.zip")[0] == files


def test_a_published_study_makes_the_bundle_that_its_files_are(tmp_path: Path) -> None:
    write_bundle(tmp_path / "learning.zip", files_of_folder(STUDY))
    files, _ = read_bundle(tmp_path / "learning.zip")
    assert files == {name: (STUDY / name).read_bytes() for name in FILES if (STUDY / name).exists()}
    shutil.copytree(STUDY, tmp_path / "part", ignore=shutil.ignore_patterns("environment.json"))
    with pytest.raises(SpecsweepError, match=r"part: lacks environment\.json"):
        files_of_folder(tmp_path / "part")


def test_a_bundle_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    first = write_bundle(path, {"table.md": b"1"})
    assert write_bundle(path, {"table.md": b"2"}) != first
    assert read_bundle(path)[0] == {"table.md": b"2"}
    for content in (b"thesis", b"", b"PK\x03\x04" + b"x" * 99):
        path.write_bytes(content)
        with pytest.raises(SpecsweepError, match=r"x\.zip: is there already, and is no bundle; give another name"):
            write_bundle(path, {"table.md": b"1"})
        assert path.read_bytes() == content


def test_a_sweep_of_which_nothing_was_begun_is_refused(ledger: Ledger) -> None:
    with pytest.raises(SpecsweepError, match="no trial was begun yet; there is nothing to bundle"):
        files_of_ledger(ledger)


def test_the_command_names_the_file_after_the_sweep(
    recorded: Ledger, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    ended = command("bundle", str(recorded.path.parent))
    digest = hashlib.sha256((tmp_path / "tiny.zip").read_bytes()).hexdigest()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"written: tiny.zip, 9 files and their manifest, SHA-256 {digest}\n"
    ended = command("verify", "tiny.zip")
    assert ended.returncode == 0
    assert ended.stdout == (
        "tiny.zip: 9 files, 8 trials: every SHA-256 is that of the manifest, and the tables follow from the trials\n"
    )
