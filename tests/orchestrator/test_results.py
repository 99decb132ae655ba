"""Sweeps as data frames: of a ledger, of the files that were published of one, and in a notebook."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.api.types import is_any_real_numeric_dtype, is_bool_dtype
from pandas.testing import assert_frame_equal

from orchestrator import SweepResults, load
from orchestrator.ledger.ledger import Ledger
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.per_trial.trials_csv import COLUMNS
from orchestrator.reports.result_files import write_tables
from orchestrator.results import VERDICT_COLUMNS
from orchestrator.trials.events import Finished, Pruned, Reported, Started
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial
from specvit.errors import SpecsweepError

from .reports.table_records import DECIDED, INFO, RECORDS

STUDY = Path(__file__).parents[2] / "results" / "studies" / "components"
FRAMES = ("trials", "metrics", "curves", "tables", "verdicts")


@pytest.fixture
def folder(ledger: Ledger, trials: tuple[Trial, ...]) -> Path:
    """Return the folder of a ledger of a sweep that runs: 5 trials are done, one is pruned, one runs, one waits."""
    for trial in trials[:7]:
        attempt = ledger.begin_attempt(trial.trial_id)
        ledger.record(Started(trial.trial_id, attempt, "worker", "cpu"))
        ledger.record(Reported(trial.trial_id, attempt, 2, {"knn_top1": 10.0 + trial.seed, "dino_loss": math.nan}))
        if trial in trials[:5]:
            ledger.record(Finished(trial.trial_id, attempt, {"knn_top1": 0.1 + 0.2, "loss": 3.5}, 2.0, 1.0))
        elif trial is trials[5]:
            ledger.record(Pruned(trial.trial_id, attempt, step=2, seconds=1.0, why="behind"))
    return ledger.path.parent


def test_a_sweep_is_loaded_from_its_ledger_while_it_runs_and_nothing_is_written(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    loaded = load(folder)
    assert loaded.trials["state"].tolist() == ["done"] * 5 + ["pruned", "running", "waiting"]
    assert loaded.trials["reason"].tolist()[5] == "behind"
    assert loaded.trials["knn_top1"].tolist()[:5] == [0.1 + 0.2] * 5
    assert loaded.trials["training_id"].nunique() == 8
    assert repr(loaded) == "<SweepResults tiny: 8 trials (5 done, 1 pruned, 1 running, 1 waiting)>"
    assert (loaded.question, loaded.sweep.seeds) == ("Does a tiny sweep run?", (0, 1))
    assert sorted(path.name for path in folder.iterdir()) == before


def test_frames_of_the_files_are_those_of_the_ledger(folder: Path, tmp_path: Path) -> None:
    loaded = load(folder)
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        write_tables(tmp_path / "sent", SweepData.of_ledger(ledger, with_training_ids=True))
    loaded.curves.to_csv(tmp_path / "sent" / "curves.csv", index=False)
    for target in (tmp_path / "sent", str(tmp_path / "sent" / "trials.csv")):
        sent = load(target)
        for name in FRAMES:
            assert_frame_equal(getattr(sent, name), getattr(loaded, name), check_exact=True)


def test_metrics_and_curves_have_a_row_a_number(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.metrics["metric"].value_counts().to_dict() == {"knn_top1": 5, "loss": 5}
    assert loaded.curves.groupby("metric")["value"].count().to_dict() == {"dino_loss": 0, "knn_top1": 7}
    assert loaded.curves.groupby("metric").size().to_dict() == {"dino_loss": 7, "knn_top1": 7}


@pytest.mark.parametrize("name", ["trials", "metrics", "tables"])
def test_frames_of_a_study_hold_the_numbers_of_its_files(name: str) -> None:
    file = {"trials": "trials.csv", "metrics": "metrics.csv", "tables": "table.csv"}[name]
    read, frame = pd.read_csv(STUDY / file), getattr(load(STUDY), name)
    assert frame.columns.tolist() == read.columns.tolist()
    numbers = read.dropna(axis="columns", how="all").select_dtypes("number").columns
    assert len(numbers) > (12 if name != "metrics" else 1)
    assert_frame_equal(frame[numbers], read[numbers], check_dtype=False, check_exact=True)
    assert frame["arm"].tolist() == read["arm"].tolist()


def test_verdicts_have_a_row_for_each_difference() -> None:
    """Of DECIDED, by arithmetic: a mean of 3.1 with 95% within .088, which is Student's interval of five seeds."""
    info = replace(INFO, metrics=("knn_top1", "miou"), smallest_effects={"miou": 1.0})
    verdicts = SweepResults(SweepData(info, tuple(DECIDED))).verdicts
    assert tuple(verdicts.columns) == VERDICT_COLUMNS
    first, second = verdicts.to_dict("records")
    assert (first["metric"], first["is_primary"], pd.isna(first["verdict"])) == ("knn_top1", False, True)
    assert (second["metric"], second["is_primary"], second["verdict"], second["n"]) == ("miou", True, "better", 5)
    assert second["difference"] == pytest.approx(3.1)
    assert (second["high"] - second["low"]) / 2 == pytest.approx(2.776445 * math.sqrt(0.005 / 5), rel=1e-4)


def test_numbers_are_numbers_also_where_there_is_none_yet() -> None:
    waiting = [replace(record, state=State.WAITING, metrics={}, seconds=None) for record in DECIDED]
    info = replace(INFO, metrics=("knn_top1", "miou"), smallest_effects={"miou": 1.0})
    some, none = (SweepResults(SweepData(info, tuple(records))).tables for records in (DECIDED, waiting))
    texts = {"group", "arm", "role", "knn_top1_verdict", "miou_verdict"}
    for frame in (some, none):
        assert {name for name in frame if not is_any_real_numeric_dtype(frame[name])} == {*texts, "is_no_op"}
        assert is_bool_dtype(frame["is_no_op"])
    assert math.isnan(none["miou_diff"].mean())


def test_a_sweep_without_trials_has_empty_frames() -> None:
    empty = SweepResults(SweepData(INFO, ()))
    assert [len(getattr(empty, name)) for name in FRAMES] == [0] * 5
    assert set(empty.trials.columns) == {*COLUMNS, *INFO.metrics}
    assert repr(empty) == "<SweepResults components: 0 trials>"


def test_a_notebook_shows_texts_as_they_are() -> None:
    hostile = "<script>alert(1)</script>"
    records = tuple(replace(record, trial=replace(record.trial, group=hostile, arm=hostile)) for record in RECORDS)
    shown = SweepResults(SweepData(replace(INFO, name=hostile, question=hostile), records))._repr_html_()
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") >= 4


def test_a_ledger_that_is_a_broken_link_is_no_reason_to_read_the_files_beside_it(tmp_path: Path) -> None:
    sent = shutil.copytree(STUDY, tmp_path / "sent")
    (sent / "ledger.sqlite").symlink_to(tmp_path / "absent")
    with pytest.raises(SpecsweepError, match="has neither a ledger nor"):
        load(sent)


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "absent", STUDY / "table.csv"):
        with pytest.raises(SpecsweepError, match=r"has neither a ledger nor trials\.csv; give the folder of a sweep's"):
            load(target)


def test_the_notebook_of_a_study_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run its cells one after the other, as a kernel would, in the study's folder."""
    shutil.copytree(STUDY, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads(Path("explore.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"] == [[]] * len(cells)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
    gap = eval(cells[2].splitlines()[-1], names)
    assert gap < 1e-10  # pairing by seed has the table's differences
    assert len(names["primary"]) == 8
    names["axes"].figure.clear()
