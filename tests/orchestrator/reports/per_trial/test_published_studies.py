"""The published studies: their tables follow from their trials, to the last byte."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from orchestrator.reports.per_trial.curves_csv import render_curves
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.result_files import table_texts, trial_texts

STUDIES = Path(__file__).parents[4] / "results" / "studies"
QUICK = ("components", "learning")
NAMES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.long)
    for name in sorted(path.parent.name for path in STUDIES.glob("*/trials.csv"))
]


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_of_a_study_are_made_again_from_its_trials(name: str) -> None:
    folder = STUDIES / name
    data = SweepData.of_folder(folder)
    for file, text in (table_texts(data) | trial_texts(data) | {"curves.csv": render_curves(data.records)}).items():
        assert (folder / file).read_text() == text, file


@pytest.mark.parametrize("name", QUICK)
def test_means_and_deviations_of_a_study_are_those_of_the_standard_library(name: str) -> None:
    with (STUDIES / name / "trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    with (STUDIES / name / "table.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            values = [float(trial["miou"]) for trial in trials if trial["arm"] == row["arm"]]
            assert float(row["miou_mean"]) == pytest.approx(statistics.fmean(values), rel=1e-12)
            assert float(row["miou_sd"]) == pytest.approx(statistics.stdev(values), rel=1e-12)
            assert int(row["miou_n"]) == len(values)
