from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.ledger.attempts import select_attempts
from orchestrator.ledger.event_stream import EventReader, encode
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.trials.events import Failed, Finished, Logged, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial
from specvit.training.cost import TrainingCost

COMMON = ["kind", "at", "trial_id", "attempt", "label", "group", "arm", "role", "seed"]


def news(reader: EventReader, ledger: Ledger) -> list[dict[str, Any]]:
    with ledger.snapshot() as connection:
        return reader.poll(connection)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["kind"] for event in events]


def test_an_attempt_is_told_from_its_beginning_to_its_end(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    key = trials[0].trial_id
    attempt = ledger.begin_attempt(key)
    ledger.record(Started(key, attempt, "node:1"))
    ledger.record(Reported(key, attempt, 2, {"knn_top1": 1.0}))
    ledger.record(Logged(key, attempt, "WARNING", "low"))
    ledger.record(Finished(key, attempt, {"knn_top1": 2.0}, 3.0, 4.0, cost=TrainingCost(2.5, 80.0, 0.75)))
    events = news(EventReader(), ledger)
    assert kinds(events)[:3] == ["registered", "begun", "started"]
    assert sorted(kinds(events)[3:5]) == ["log", "rung"]
    assert kinds(events)[5:] == ["done"]
    for event in events[1:]:
        assert list(event)[:9] == COMMON
        assert (event["trial_id"], event["attempt"], event["label"]) == (key, 1, "nano none seed 0")
        assert (event["group"], event["arm"], event["role"], event["seed"]) == ("", "none", "baseline", 0)
    own = {event["kind"]: {name: event[name] for name in list(event)[9:]} for event in events}
    assert own["registered"] == {"sweep": "tiny", "run": 1, "trials": 8}
    assert own["begun"]["gpus"] == 0
    assert own["begun"]["share"]["cpus"] == 1
    assert own["started"] == {"worker": "node:1", "device": None}
    assert own["rung"] == {"step": 2, "metrics": {"knn_top1": 1.0}}
    assert own["log"] == {"number": 1, "level": "WARNING", "text": "low"}
    assert own["done"] == {
        "metrics": {"knn_top1": 2.0}, "step": 2, "seconds": 3.0, "core_seconds": 4.0,
        "training_s": 2.5, "training_images_per_s": 80.0, "peak_memory_gib": 0.75, "peak_gpu_memory_gib": None,
    }
    assert [events[0][name] for name in COMMON[2:]] == [None] * 7


def test_log_events_are_left_out_where_nobody_reads_them(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    key = trials[0].trial_id
    attempt = ledger.begin_attempt(key)
    ledger.record(Logged(key, attempt, "WARNING", "low"))
    ledger.record(Reported(key, attempt, 2, {}))
    assert kinds(news(EventReader(reads_logs=False), ledger)) == ["registered", "begun", "rung"]


def test_other_ends_carry_what_is_known_of_them(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    pruned, failed, lost, omitted = (trial.trial_id for trial in trials[:4])
    ledger.record(Pruned(pruned, ledger.begin_attempt(pruned), 2, 3.0, "by hand"))
    ledger.record(Failed(failed, ledger.begin_attempt(failed), "boom", "Traceback", 1.0, Cause.GPU_MEMORY))
    ledger.record(Reported(lost, ledger.begin_attempt(lost), 2, {}))
    ledger.release_running()
    ledger.skip([omitted], "no GPU hours left")
    events = {event["kind"]: event for event in news(EventReader(), ledger)}
    assert [events["pruned"][key] for key in ("step", "seconds", "why")] == [2, 3.0, "by hand"]
    assert (events["failed"]["cause"], events["failed"]["error"]) == ("gpu_memory", "boom")
    assert (events["lost"]["trial_id"], events["lost"]["step"]) == (lost, 2)
    left = events["left_out"]
    assert (left["trial_id"], left["at"], left["attempt"], left["reason"]) == (omitted, None, None, "no GPU hours left")


def test_what_was_told_is_not_told_again_and_what_is_new_is(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    reader, key = EventReader(), trials[0].trial_id
    assert kinds(news(reader, ledger)) == ["registered"]
    attempt = ledger.begin_attempt(key)
    assert kinds(news(reader, ledger)) == ["begun"]
    ledger.record(Started(key, attempt, "w"))
    ledger.record(Progressed(key, attempt, 1, 4, 1.0))
    assert kinds(news(reader, ledger)) == ["started"]
    ledger.record(Reported(key, attempt, 2, {}))
    ledger.record(Logged(key, attempt, "INFO", "a"))
    assert sorted(kinds(news(reader, ledger))) == ["log", "rung"]
    ledger.record(Logged(key, attempt, "INFO", "b"))
    assert [event["text"] for event in news(reader, ledger)] == ["b"]
    ledger.record(Failed(key, attempt, "x", ""))
    ledger.begin_attempt(key)
    assert [(event["kind"], event["attempt"]) for event in news(reader, ledger)] == [("failed", 1), ("begun", 2)]
    assert news(reader, ledger) == []


def test_a_trial_is_told_to_be_left_out_again_if_a_later_run_does(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    reader, key = EventReader(), trials[0].trial_id
    ledger.skip([key], "one")
    assert kinds(news(reader, ledger)) == ["registered", "left_out"]
    assert news(reader, ledger) == []
    ledger.clear_skipped()
    assert news(reader, ledger) == []
    ledger.skip([key], "one")
    assert kinds(news(reader, ledger)) == ["left_out"]


def test_trials_that_left_the_sweep_file_are_not_told_of(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    ledger.begin_attempt(trials[0].trial_id)
    ledger.register(ledger.sweep(), trials[1:], collect_provenance())
    events = news(EventReader(), ledger)
    assert [(event["kind"], event["run"], event["trials"]) for event in events] == [
        ("registered", 1, 7),
        ("registered", 2, 7),
    ]


def test_events_of_a_trial_stay_in_causal_order_where_the_clock_went_back(
    ledger: Ledger, trials: tuple[Trial, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(23, 0, -1))
    monkeypatch.setattr("orchestrator.ledger.ledger._now", lambda: f"2999-01-01T{next(hours):02}:00:00.000+00:00")
    first, second = trials[0].trial_id, trials[1].trial_id
    attempt = ledger.begin_attempt(first)
    ledger.record(Started(first, attempt, "w"))
    ledger.record(Failed(first, attempt, "x", ""))
    ledger.begin_attempt(first)
    ledger.begin_attempt(second)
    events = [event for event in news(EventReader(), ledger) if event["kind"] != "registered"]
    assert [event["label"] for event in events] == [trials[1].label, *[trials[0].label] * 4]
    assert kinds(events)[1:] == ["begun", "started", "failed", "begun"]


def test_metrics_that_are_not_finite_are_texts_in_valid_json(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    key = trials[0].trial_id
    attempt = ledger.begin_attempt(key)
    ledger.record(Reported(key, attempt, 2, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5}))
    ledger.record(Finished(key, attempt, {"a": math.nan}, 1.0, 1.0))
    lines = [encode(event) for event in news(EventReader(), ledger)]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    *_, rung, done = (json.loads(line, parse_constant=refuse) for line in lines)
    assert rung["metrics"] == {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 0.5}
    assert done["metrics"] == {"a": "NaN"}
    assert math.isnan(float(rung["metrics"]["a"]))
    assert float(rung["metrics"]["c"]) == -math.inf


def test_a_line_is_ascii_without_control_characters(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    key = trials[0].trial_id
    ledger.record(Failed(key, ledger.begin_attempt(key), "a\n\x1b[31m\x9b ü", ""))
    line = encode(news(EventReader(), ledger)[-1])
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["error"] == "a\n\x1b[31m\x9b ü"


ACTIONS = ("begin", "start", "report", "log", "finish", "fail", "release", "look")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1), st.integers(1, 3)), max_size=30))
def test_looking_in_between_tells_the_same_events_as_looking_once_at_the_end(
    trials: tuple[Trial, ...],
    ledger: Ledger,
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[str, int, int]],
) -> None:
    path = tmp_path_factory.mktemp("stream") / "ledger.sqlite"
    with Ledger.open(path) as stream:
        stream.register(ledger.sweep(), trials, collect_provenance())
        reader, told = EventReader(), []
        for action, index, number in history:
            key = trials[index].trial_id
            apply(stream, action, key, number)
            if action == "look":
                told += news(reader, stream)
        told += news(reader, stream)
        at_once = news(EventReader(), stream)
    assert Counter(map(encode, told)) == Counter(map(encode, at_once))
    assert max(Counter(map(encode, told)).values()) == 1
    assert stored(path) == len(told)


def apply(stream: Ledger, action: str, key: str, number: int) -> None:
    newest = {record.trial.trial_id: record for record in stream.records()}[key]
    attempt = newest.num_attempts
    match action:
        case "begin" if newest.state != "done":
            stream.begin_attempt(key)
        case "start" if not is_started(stream, key):
            stream.record(Started(key, attempt, "w"))
        case "report":
            stream.record(Reported(key, attempt, number, {"m": 1.0}))
        case "log":
            stream.record(Logged(key, attempt, "INFO", str(number)))
        case "finish":
            stream.record(Finished(key, attempt, {}, 1.0, 1.0))
        case "fail":
            stream.record(Failed(key, attempt, "x", ""))
        case "release":
            stream.release_running()


def is_started(stream: Ledger, key: str) -> bool:
    with stream.snapshot() as connection:
        attempts = select_attempts(connection, key)
    return not attempts or attempts[-1].started_at is not None


def stored(path: Path) -> int:
    """Count what the ledger holds: its runs, and the times, rungs and log lines of its attempts."""
    with sqlite3.connect(path) as connection:
        return sum(
            int(connection.execute(f"SELECT COUNT({column}) FROM {table}").fetchone()[0])
            for column, table in (
                ("*", "runs"), ("submitted_at", "attempts"), ("started_at", "attempts"), ("ended_at", "attempts"),
                ("*", "reports"), ("*", "logs"),
            )
        )  # fmt: skip
