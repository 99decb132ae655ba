"""``metrics.csv``: the final numbers of ``trials.csv`` in long form, as other tools read them."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
from pandas.testing import assert_frame_equal

from orchestrator.reports.per_trial.metrics_csv import render_metrics

from ..table_records import make_records

STUDY = Path(__file__).parents[4] / "results" / "studies" / "learning"


def test_a_row_has_one_metric_of_one_trial_those_of_the_table_first() -> None:
    done, pruned = make_records('a "b", c', 0.0, None)
    (baseline,) = make_records("none", 0.0, role="baseline")
    records = [
        replace(done, metrics={"loss": 0.1 + 0.2, "miou": 30.0}),
        pruned,
        replace(baseline, metrics={"miou": math.nan}),
    ]
    rows = list(csv.reader(io.StringIO(render_metrics(records, ["knn_top1", "miou"]))))
    assert rows == [
        ["group", "arm", "role", "seed", "trial_id", "metric", "value"],
        ["", 'a "b", c', "arm", "0", ' a "b", c 0', "miou", "30.0"],
        ["", 'a "b", c', "arm", "0", ' a "b", c 0', "loss", "0.30000000000000004"],
        ["", "none", "baseline", "0", " none 0", "miou", "nan"],
    ]


def test_that_of_a_study_is_what_pandas_makes_of_its_trials() -> None:
    trials = pd.read_csv(STUDY / "trials.csv", keep_default_na=False, na_values=[""])
    found = pd.read_csv(STUDY / "metrics.csv", keep_default_na=False, na_values=[""])
    names = [name for name in found["metric"].unique() if name in trials]
    assert {"knn_top1", "linear_top1", "miou", "loss"} <= set(names)
    keys = ["group", "arm", "role", "seed", "trial_id"]
    melted = trials.melt(keys, names, "metric", "value").dropna(subset="value")
    order = ["trial_id", "metric"]
    assert_frame_equal(
        found.sort_values(order, ignore_index=True), melted.sort_values(order, ignore_index=True), check_exact=True
    )
