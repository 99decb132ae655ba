"""Bundles and folders held against their manifest and their trials: what is named where something was changed."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.bundle import files_of_folder, write_bundle
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.result_files import table_texts, trial_texts
from orchestrator.verify import Verification, verify
from specvit.errors import SpecsweepError

from .hand_made_zip import make_zip, manifest_of
from .reports.table_records import INFO, make_records

STUDY = Path(__file__).parents[2] / "results" / "studies" / "learning"
FILES = files_of_folder(STUDY)
Check = Callable[[dict[str, bytes]], list[str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Verify a bundle of files, whose manifest is right; return what differs."""

    def run(files: dict[str, bytes]) -> list[str]:
        write_bundle(tmp_path / "x.zip", files)
        return [str(each) for each in verify(tmp_path / "x.zip").differences]

    return run


def changed(name: str, old: str, new: str, count: int = 1) -> dict[str, bytes]:
    assert FILES[name].decode().count(old) >= count
    return FILES | {name: FILES[name].decode().replace(old, new, count).encode()}


def test_a_bundle_and_a_folder_of_a_study_are_as_they_should_be(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x.zip", FILES)
    assert verify(tmp_path / "x.zip") == Verification(tuple(sorted(FILES)), 15, True, ())
    assert verify(STUDY) == Verification(tuple(sorted(FILES)), 15, False, ())


def test_a_changed_cell_of_the_table_is_named_by_row_and_column(check: Check) -> None:
    line = FILES["table.csv"].decode().splitlines()[1].split(",")
    header = FILES["table.csv"].decode().splitlines()[0].split(",")
    value = line[header.index("miou_mean")]
    assert check(changed("table.csv", value, "99.5")) == [
        f"table.csv:2 (arm 'none'): 'miou_mean' is '99.5', computed again '{value}'"
    ]


def test_a_changed_cell_of_the_text_is_named_by_line_and_column(check: Check) -> None:
    lines = FILES["table.md"].decode().splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith("| `none`"))
    value = lines[number].split(" | ")[1]
    place = f"table.md:{number + 1} ('`none` (baseline)')"
    assert check(changed("table.md", lines[number], lines[number].replace(value, "99.9 ± 0.1", 1))) == [
        f"{place}: 'kNN top-1 (%) ↑' is '99.9 ± 0.1', computed again '{value}'"
    ]
    assert check(changed("table.md", "# learning", "# teaching")) == [
        "table.md:1: is '# teaching', computed again '# learning'"
    ]


def test_a_changed_trial_shows_in_every_table(check: Check) -> None:
    first = FILES["trials.csv"].decode().splitlines()[1].split(",")
    found = check(changed("trials.csv", ",".join(first[:8]), ",".join([*first[:7], "99.5"])))
    assert {each.partition(":")[0] for each in found} == {"table.md", "table.csv", "metrics.csv"}
    assert any(each.startswith("table.csv:2 (arm 'none'): 'miou_mean' is ") for each in found)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (changed("table.csv", "group,arm", "group,ARM"), "table.csv:1: columns: 'ARM' too many, 'arm' missing"),
        (
            FILES | {"table.csv": FILES["table.csv"] + FILES["table.csv"].splitlines(keepends=True)[1]},
            "table.csv:5 (arm 'none'): this row does not follow from the trials",
        ),
        (
            FILES | {"table.csv": b"".join(FILES["table.csv"].splitlines(keepends=True)[:-1])},
            "table.csv:4 (arm 'raw pixels'): this row is missing",
        ),
        ({name: each for name, each in FILES.items() if name != "table.csv"}, "table.csv: is missing"),
        ({name: each for name, each in FILES.items() if name != "environment.json"}, "environment.json: is missing"),
        (FILES | {"interactions.csv": b"arm\n"}, "interactions.csv: does not follow from the trials"),
        (
            changed("metrics.csv", "\n,none,", "\n,other,"),
            "metrics.csv:2 (arm 'other', seed '50', metric 'knn_top1'): 'arm' is 'other', computed again 'none'",
        ),
        (
            changed("curves.csv", "\n,none,", "\n,other,"),
            "curves.csv:2 (arm 'other', seed '50', step '",
        ),
    ],
)
def test_rows_columns_and_files_that_are_too_many_or_missing_are_named(
    files: dict[str, bytes], expected: str, check: Check
) -> None:
    assert any(each.startswith(expected) for each in check(files))


def test_groups_are_held_against_what_is_found_across_them(check: Check) -> None:
    records = []
    for group in ("x=1", "x=2"):
        records += make_records("none", 0.0, 1.0, 2.5, role="baseline", group=group)
        records += make_records("a", 3.0, 4.1, 5.7, group=group)
    data = SweepData(INFO, tuple(records))
    made = {name: text.encode() for name, text in (table_texts(data) | trial_texts(data)).items()}
    files = {name: FILES[name] for name in ("sweep.yaml", "environment.json")} | made
    assert check(files) == []
    text = files["interactions.csv"].decode()
    files["interactions.csv"] = text.replace("a,arm,x=2,x=1,miou,0.0", "a,arm,x=2,x=1,miou,9.5").encode()
    (found,) = check(files)
    assert found == "interactions.csv:3 (group 'x=2', arm 'a', metric 'miou'): 'diff' is '9.5', computed again '0.0'"


def test_what_libraries_round_unlike_is_no_difference_and_what_was_measured_is_exact(check: Check) -> None:
    header, line = (each.split(",") for each in FILES["table.csv"].decode().splitlines()[:2])
    value = line[header.index("miou_mean")]
    assert check(changed("table.csv", value, repr(float(value) * (1 + 1e-8)))) == []
    assert len(check(changed("table.csv", value, repr(float(value) * (1 + 1e-5))))) == 1
    step, seed = ((row.split(",")[i] for row in FILES["curves.csv"].decode().splitlines()[1:2]) for i in (6, 3))
    assert len(check(changed("curves.csv", f",{next(seed)},", ",50.00000001,"))) == 1
    assert next(step).isdigit()


def test_a_file_that_was_changed_is_named_by_its_sha256(tmp_path: Path) -> None:
    files = changed("environment.json", '"python"', '"snake"')
    (tmp_path / "x.zip").write_bytes(make_zip([("MANIFEST", manifest_of(FILES)), *sorted(files.items())]))
    (found,) = verify(tmp_path / "x.zip").differences
    is_now, was = (hashlib.sha256(each["environment.json"]).hexdigest() for each in (files, FILES))
    assert str(found) == f"environment.json: its SHA-256 is {is_now}, in MANIFEST {was}"


def test_files_that_the_manifest_does_not_name_or_names_alone_are_told(tmp_path: Path) -> None:
    named = {name: content for name, content in FILES.items() if name != "curves.csv"} | {"diagnostics.csv": b""}
    (tmp_path / "x.zip").write_bytes(make_zip([("MANIFEST", manifest_of(named)), *sorted(FILES.items())]))
    assert [str(each) for each in verify(tmp_path / "x.zip").differences] == [
        "curves.csv: is not in MANIFEST", "diagnostics.csv: is in MANIFEST alone"
    ]


def test_what_cannot_be_computed_again_is_told_beside_what_was_changed(tmp_path: Path) -> None:
    files = changed("trials.csv", ",done,", ",over,")
    (tmp_path / "x.zip").write_bytes(make_zip([("MANIFEST", manifest_of(FILES)), *sorted(files.items())]))
    first, second = (str(each) for each in verify(tmp_path / "x.zip").differences)
    assert first.startswith("trials.csv: its SHA-256 is ")
    assert second.startswith(f"nothing can be computed again: {tmp_path}/x.zip: trials.csv:2: state: must be one of ")
    (tmp_path / "x.zip").write_bytes(make_zip([("MANIFEST", manifest_of(files)), *sorted(files.items())]))
    with pytest.raises(SpecsweepError, match=r"x\.zip: trials\.csv:2: state: must be one of "):
        verify(tmp_path / "x.zip")


def test_metrics_of_a_probe_that_is_not_installed_are_refused(check: Check) -> None:
    data = SweepData.of_folder(STUDY)
    info = replace(data.info, metrics=("miou", "class_means_top1"))
    files = FILES | {name: text.encode() for name, text in trial_texts(replace(data, info=info)).items()}
    with pytest.raises(SpecsweepError, match="its table has class_means_top1, of no probe that is installed here"):
        check(files)


def test_the_command_names_differences_and_exits_1(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "x.zip", changed("table.csv", ",none,", ",\x1b[31m,"))
    ended = command("verify", "x.zip")
    assert (ended.returncode, ended.stderr) == (1, "specsweep: x.zip: 1 difference\n")
    assert ended.stdout == "table.csv:2 (arm '\\\\x1b[31m'): 'arm' is '\\\\x1b[31m', computed again 'none'\n"
    (tmp_path / "x.zip").write_bytes(b"thesis")
    ended = command("verify", "x.zip")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "specsweep: x.zip: is no bundle; 'specsweep bundle' writes such files\n"
    assert command("verify", "absent.zip").returncode == 2


def test_what_follows_from_nothing_is_not_bundled(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "results" / "studies" / "x"
    folder.mkdir(parents=True)
    for name, content in changed("table.csv", ",none,", ",other,").items():
        (folder / name).write_bytes(content)
    ended = command("bundle", "studies/x")
    assert ended.returncode == 2
    assert "x: not bundled: its tables do not follow from its trials: table.csv:2 (arm 'other'): " in ended.stderr
    assert not (tmp_path / "x.zip").exists()
