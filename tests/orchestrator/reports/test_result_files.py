from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest

from orchestrator.ledger.provenance import collect_provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.result_files import render_csv, render_json, write_provenance, write_tables
from specvit.errors import SpecsweepError

from .table_records import INFO, METRICS, RECORDS, make_records

DATA = SweepData(INFO, tuple(RECORDS))
FILES = ["metrics.csv", "sweep.json", "table.csv", "table.md", "trials.csv"]
SWEEP = SweepInfo(name="s", question="?", text="# mine\nseeds: 1\n", metrics=("miou",), seeds=(0,))


def test_csv_keeps_texts_as_they_are() -> None:
    records = make_records("=1+1", 1.0, role="baseline")
    rows = list(csv.reader(io.StringIO(render_csv(build_tables(records, METRICS), INFO))))
    assert rows[1][rows[0].index("arm")] == "=1+1"


def test_csv_has_the_group_first_and_numbers_in_full_precision() -> None:
    tables = build_tables(RECORDS, METRICS)
    rows = list(csv.DictReader(io.StringIO(render_csv(tables, INFO))))
    assert list(rows[0])[:3] == ["group", "arm", "role"]
    assert [row["arm"] for row in rows] == [row.arm for row in tables[""].rows]
    difference = tables[""].rows[1].metrics["knn_top1"].difference
    assert difference is not None
    assert float(rows[1]["knn_top1_diff"]) == difference.mean
    assert (rows[0]["knn_top1_diff"], rows[0]["knn_top1_n"]) == ("", "3")


def test_columns_of_the_csv_stand_in_their_order() -> None:
    text = render_csv(build_tables(make_records("none", 1.0, role="baseline"), ["miou"]), INFO)
    assert next(csv.reader(io.StringIO(text))) == [
        *("group", "arm", "role", "miou_mean", "miou_sd", "miou_n"),
        *("miou_diff", "miou_diff_low", "miou_diff_high", "miou_diff_n", "miou_diff_p"),
        *("miou_diff_q", "miou_verdict", "miou_more_seeds"),
        *("extra_parameters_percent", "num_parameters"),
        *("seeds", "done", "pruned", "failed", "unfinished", "left_out", "seconds", "core_seconds"),
        *("training_s", "training_images_per_s", "peak_memory_gib", "peak_gpu_memory_gib", "is_no_op"),
    ]


def test_csv_quotes_what_needs_it() -> None:
    records = make_records('a,"b"', 1.0, role="baseline", group="x,y")
    (row,) = csv.DictReader(io.StringIO(render_csv(build_tables(records, METRICS), INFO)))
    assert (row["group"], row["arm"]) == ("x,y", 'a,"b"')


def test_json_has_rows_metrics_and_failures_with_null_for_what_is_missing() -> None:
    document = json.loads(render_json(build_tables(RECORDS, METRICS), INFO))
    (table,) = document["tables"]
    assert document["sweep"] == "components"
    assert document["metrics"][0] == {
        "name": "knn_top1",
        "title": "kNN top-1",
        "unit": "%",
        "higher_is_better": True,
    }
    assert table["rows"][0]["knn_top1_diff"] is None
    assert table["rows"][1]["knn_top1_diff"] == pytest.approx(3.1)
    assert [failure["trial"] for failure in table["failures"]] == ["a|b seed 1", "a|b seed 2"]


def test_sweep_without_trials_is_rendered_in_every_format() -> None:
    assert render_markdown({}, INFO) == "# components\n\nWhich component gains?\n"
    assert render_csv({}, INFO) == ""
    assert json.loads(render_json({}, INFO))["tables"] == []


def test_tables_are_written_as_markdown_and_csv_and_leave_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "components"
    for _ in range(2):
        paths = write_tables(folder, DATA)
    assert paths == (folder / "table.md", folder / "table.csv")
    assert paths[0].read_text() == render_markdown(build_tables(RECORDS, METRICS), INFO)
    assert paths[1].read_text() == render_csv(build_tables(RECORDS, METRICS), INFO)
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_table_that_cannot_be_replaced_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tables(tmp_path, SweepData(INFO, DATA.records[:3]))
    old = (tmp_path / "table.md").read_text()

    def refuse(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SpecsweepError, match=r"table\.md.*disk full"):
        write_tables(tmp_path, DATA)
    assert (tmp_path / "table.md").read_text() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def _write_environment(folder: Path, *argv: str) -> dict[str, object]:
    write_provenance(folder, SWEEP, dataclasses.replace(collect_provenance(), argv=argv))
    environment: dict[str, object] = json.loads((folder / "environment.json").read_text())
    return environment


def test_the_copy_holds_the_sweep_file_to_the_letter(tmp_path: Path) -> None:
    _write_environment(tmp_path, "specsweep", "run", "s.yaml")
    assert (tmp_path / "sweep.yaml").read_text() == SWEEP.text


def test_environment_names_the_command_without_the_machines_folders(tmp_path: Path) -> None:
    argv = ("/home/me/bin/specsweep", "run", "sweeps/s.yaml", "--set", "data.root=/home/me/images")
    environment = _write_environment(tmp_path, *argv)
    assert environment["command"] == "specsweep run sweeps/s.yaml --set data.root=images"


def test_environment_names_versions_and_hardware_but_no_host(tmp_path: Path) -> None:
    environment = _write_environment(tmp_path, "specsweep")
    assert {"torch", "ray", "optuna", "timm", "python"} <= set(environment["versions"])  # type: ignore[call-overload]
    assert environment["num_cores"]
    assert "host" not in environment


def test_environment_written_twice_leaves_no_other_files(tmp_path: Path) -> None:
    _write_environment(tmp_path, "specsweep")
    _write_environment(tmp_path, "specsweep")
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.yaml", "environment.json"}
