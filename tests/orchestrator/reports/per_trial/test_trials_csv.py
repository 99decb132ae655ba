"""Records as rows of a CSV, and back."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pandas as pd
import pytest

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.per_trial.curves_csv import add_reports, render_curves
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.per_trial.trials_csv import COLUMNS, column_of, order_metrics, read_trials, render_trials
from orchestrator.reports.result_files import table_texts, trial_texts
from orchestrator.trials.computation import Computation
from orchestrator.trials.records import Cause, Report, State, TrialRecord
from specvit.errors import SpecsweepError
from specvit.kept_weights import WeightsFile

from ..table_records import INFO, METRICS, RECORDS, make_records, make_trial, with_costs

HERE = Computation.make({"specvit": "1" * 64}, {"python": "3.11.7", "torch": "2.14.1", "ray": "2.60"}, "cpu AMD")
THERE = replace(HERE, device="cuda NVIDIA H200", code={"specvit": "2" * 64, "mine": "3" * 64})
FULL = TrialRecord(
    make_trial('a,"b"\r\nc', 2**63 - 1, group=" x "),
    State.DONE,
    num_attempts=3,
    reports=(Report(10, {"miou": 0.1, "dino_loss": math.inf}), Report(20, {"miou": -0.0})),
    metrics={"seed": -0.0, "metric:x": 1e-320, "loss": -math.inf, "miou": 0.1 + 0.2},
    steps=300,
    step=300,
    seconds=1 / 3,
    core_seconds=2.0,
    computation=HERE,
    weights=(WeightsFile("none-1/student.safetensors", "a" * 64, False), WeightsFile("none-1/t", "b" * 64, True)),
    trained_by="c" * 64,
    added_later=frozenset({"miou", "a;b"}),
)
OTHERS = [
    TrialRecord(make_trial("b", 0), State.WAITING),
    TrialRecord(make_trial("b", 1), State.RUNNING, num_attempts=1, step=3, steps=9),
    TrialRecord(make_trial("b", 2), State.PRUNED, num_attempts=1, step=3, steps=9, error="behind\nby far", seconds=1.0),
    TrialRecord(make_trial("b", 3), State.FAILED, num_attempts=2, error="no", cause=Cause.GPU_MEMORY),
    TrialRecord(make_trial("b", 4), State.SKIPPED, skip_reason="time_budget_h: 1"),
]


def read_back(records: list[TrialRecord]) -> list[TrialRecord]:
    found, _ = read_trials(render_trials(records, METRICS).encode())
    return list(found)


def test_records_read_back_as_they_were_but_for_rungs_tracebacks_and_weights_that_no_probe_saw() -> None:
    records = [*with_costs([FULL], gpu=0.5), *with_costs(RECORDS), *OTHERS]
    expected = [replace(records[0], reports=(), weights=FULL.weights[1:]), *records[1:]]
    assert read_back(records) == expected


def test_what_is_not_a_number_is_told_from_what_is_not_there() -> None:
    (record,) = read_back([replace(OTHERS[0], metrics={"miou": math.nan})])
    assert list(record.metrics) == ["miou"]
    assert math.isnan(record.metrics["miou"])


def test_rungs_read_back_as_they_were() -> None:
    records = (FULL, *RECORDS)
    assert add_reports([replace(record, reports=()) for record in records], render_curves(records).encode()) == records


def test_training_ids_stand_beside_the_ids_of_trials() -> None:
    known = {RECORDS[1].trial.trial_id: "d" * 64}
    assert read_trials(render_trials(RECORDS, METRICS, known).encode())[1] == known


def test_columns_are_trial_metrics_of_the_table_other_metrics_and_the_rest() -> None:
    header = render_trials([FULL], METRICS).splitlines()[0].split(",")
    metrics = [*METRICS, "metric:seed", "metric:metric:x", "loss"]
    assert header == ["group", "arm", "role", "seed", "state", *metrics, *COLUMNS[5:]]


def test_another_program_reads_the_same_numbers() -> None:
    text = render_trials(with_costs(RECORDS), METRICS)
    frame = pd.read_csv(io.StringIO(text))
    done = [record for record in RECORDS if record.state is State.DONE]
    assert frame.loc[frame["state"] == "done", "miou"].tolist() == [record.metrics["miou"] for record in done]
    assert frame["seed"].tolist() == [record.trial.seed for record in RECORDS]
    assert {row["peak_memory_gib"] for row in csv.DictReader(io.StringIO(text))} == {"0.756", ""}


@pytest.mark.parametrize(
    ("lists", "order"),
    [
        ([["x", "z"], ["x", "y", "z"]], ["x", "y", "z"]),
        ([["x", "z"], ["y", "x"]], ["y", "x", "z"]),
        ([["x"], [], ["a", "b"]], ["a", "b", "x"]),
        ([["x", "y"], ["y", "x"]], ["x", "y"]),
    ],
)
def test_the_order_of_metrics_is_that_of_every_trial(lists: list[list[str]], order: list[str]) -> None:
    assert order_metrics(lists) == order


@pytest.mark.parametrize("metric", ["miou", "seed", "metric:seed", "metric:metric:seed", ""])
def test_no_metric_is_taken_for_another_column(metric: str) -> None:
    assert column_of(metric) not in COLUMNS
    assert read_back([replace(OTHERS[0], metrics={metric: 1.5})])[0].metrics == {metric: 1.5}


MIXED = [
    *(replace(record, computation=THERE if record.trial.seed else HERE) for record in make_records("a", 1.0, 2.5, 2.0)),
    *(replace(record, computation=HERE) for record in make_records("none", 0.0, 1.0, 2.0, role="baseline")),
]
GROUPS = [
    *(make_records("none", 0.0, 1.0, 2.5, 1.5, role="baseline", group=group) for group in ("x=1", "x=2")),
    *(make_records("a", 3.0, 4.1, 5.7, 4.4, group=group) for group in ("x=1", "x=2")),
]
UNLEARNT = [
    replace(record, metrics={**record.metrics, "ibot_loss": 2.0, "ibot_loss_trivial": 2.0, "dino_loss_trivial": 1.0})
    for record in make_records("none", 0.0, 1.0, role="baseline")
]
CONTROLLED = [
    *make_records("none", 0.0, 1.0, 2.5, 1.5, role="baseline"),
    *make_records("a", 3.0, 4.1, 5.7, 4.4),
    *make_records("repeat", 0.1, 0.9, 2.5, 1.6, role="control"),
    *make_records("mine", 9.0, role="external"),
]
MODERATED = replace(INFO, comparison={"model": "blocked", "variance": "moderated"})
GROWING = replace(INFO, seeds=tuple(range(16)), growth={"start": 4, "most": 16}, smallest_effects={"miou": 0.25})


@pytest.mark.parametrize(
    ("records", "info"),
    [
        (with_costs(RECORDS), INFO),
        (MIXED, replace(INFO, primary_metric="knn_top1")),
        ([record for group in GROUPS for record in group], INFO),
        ([*UNLEARNT, *OTHERS], INFO),
        ([record for group in GROUPS[::2] for record in group], GROWING),
        (CONTROLLED, MODERATED),
        ([], INFO),
    ],
    ids=["every row", "mixed", "groups", "unlearnt and unfinished", "growing", "controls, moderated", "empty"],
)
def test_tables_of_the_files_are_those_of_the_records(records: list[TrialRecord], info: SweepInfo) -> None:
    data = SweepData(info, tuple(records))
    files = {name: text.encode() for name, text in trial_texts(data).items()}
    assert table_texts(SweepData.of_files(files)) == table_texts(data)


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("state", "over", "state: must be one of 'waiting', "),
        ("role", "", "role: must be one of 'baseline', "),
        ("seed", "0.5", "seed: must be a whole number of 64 bits, not '0.5'"),
        ("miou", "high", "miou: must be a number, 'nan', 'inf' or '-inf', not 'high'"),
        ("seconds", "nan", "seconds: must be a finite number, not 'nan'"),
        ("peak_memory_gib", "-1", "peak_memory_gib: must be a finite number of at least 0, not '-1'"),
        ("num_parameters", "-1", "num_parameters: must be a whole number from 0 to "),
        ("code", '{"specvit": 1}', "code: must be a JSON object of texts, not "),
        ("versions", "[" * 100_000, "versions: must be a JSON object of texts, not '[[["),
        ("added_later", '{"miou": "x"}', "added_later: must be a JSON list of texts, not "),
        ("weights", "../../thesis.tex", "weights: must be a path below the folder of weights, not "),
        ("weights", "/etc/passwd", "weights: must be a path below the folder of weights, not "),
        ("cause", "bad luck", "cause: must be one of 'raised', "),
        ("trial_id", RECORDS[0].trial.trial_id, "trial_id: must be another one than in the rows above, not "),
    ],
)
def test_a_wrong_value_is_refused_by_line_and_column(column: str, value: str, rule: str) -> None:
    rows = list(csv.reader(io.StringIO(render_trials(with_costs(RECORDS[:2]), METRICS))))
    rows[2][rows[0].index(column)] = value
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    with pytest.raises(SpecsweepError) as refused:
        read_trials(text.getvalue().encode(), "x/trials.csv")
    assert str(refused.value).startswith(f"x/trials.csv:3: {rule}")


def test_rungs_of_a_trial_that_is_not_there_are_refused() -> None:
    with pytest.raises(SpecsweepError, match=r"^curves\.csv:2: trial_id: must be that of a trial in trials\.csv, not "):
        add_reports(RECORDS, render_curves([FULL]).encode())
