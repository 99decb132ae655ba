"""Trials that are stopped or interrupted, and what goes on from their states."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from specvit.data import Dataset
from specvit.probing import Probing
from specvit.training.checkpoint import Checkpoint
from specvit.trial import TrialResult, run_trial

from .small_trials import BATCH_SIZE, CPU, STEPS, Watching, make_config, run_watched


def test_an_order_to_stop_is_obeyed_before_the_next_step(dataset: Dataset) -> None:
    result, observer = run_watched(make_config(), dataset, stop_after=3)
    assert result == TrialResult({}, stopped_at=3)
    assert result.cost is None
    assert list(observer.rungs) == [2]


def test_an_order_to_stop_after_the_last_step_comes_too_late(dataset: Dataset) -> None:
    result, observer = run_watched(make_config(), dataset, stop_after=STEPS)
    assert observer.num_asked == STEPS - 1
    assert result.stopped_at is None
    assert "knn_top1" in result.metrics


class Interrupted(Watching):
    """Break off, as a machine that is taken away, in the middle of telling of a step or of a rung."""

    def __init__(self, *, at_question: int = 0, at_rung: int = 0) -> None:
        super().__init__()
        self.at_question, self.at_rung = at_question, at_rung

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        if len(self.rungs) + 1 == self.at_rung:
            raise KeyboardInterrupt
        super().rung(step=step, metrics=metrics)

    def should_stop(self) -> bool:
        if self.num_asked + 1 == self.at_question:
            raise KeyboardInterrupt
        return super().should_stop()


def make_checkpoint(path: Path, **changes: Any) -> Checkpoint:
    return Checkpoint(**{"path": path, "identity": "trial", "every_s": None, "every_steps": 1, **changes})


@pytest.mark.parametrize(
    ("recipe", "interrupted"),
    [
        *(("deit3_cpu", interrupted) for interrupted in ({"at_question": 2}, {"at_rung": 2}, {"at_question": 5})),
        ("mae_cpu", {"at_rung": 2}),
        pytest.param("dinov2_cpu", {"at_rung": 2}, marks=pytest.mark.long),
        *(
            pytest.param(recipe, {"at_question": number}, marks=pytest.mark.long)
            for recipe in ("dinov2_cpu", "mae_cpu")
            for number in (2, 5)
        ),
    ],
)
def test_a_trial_that_was_interrupted_continues_to_the_last_bit_and_tells_every_rung_once(
    recipe: str, interrupted: dict[str, int], dataset: Dataset, tmp_path: Path
) -> None:
    config = make_config(recipe, treatment={"specialize": "norm@all", "perturbation": 1e-6}, probes={"knn": {}})
    expected, watching = run_watched(config, dataset)
    path = tmp_path / "folder" / "state"
    with pytest.raises(KeyboardInterrupt):
        run_trial(config, dataset, Interrupted(**interrupted), device=CPU, checkpoint=make_checkpoint(path))
    again = Interrupted()
    result = run_trial(config, dataset, again, device=CPU, checkpoint=make_checkpoint(path))
    assert result == expected
    assert again.rungs == watching.rungs
    assert list(again.rungs) == [2, 4]
    assert again.steps[-1] == (STEPS, STEPS)
    assert again.num_asked < STEPS - 1  # it did not begin anew


def test_the_cost_of_a_training_is_that_of_its_steps_also_of_those_before_an_interruption(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock that goes on by a second whenever it is read, so between a step's begin and end, and by 1000 in a rung.
    seconds = iter(range(10**6))
    ahead = [0]
    monkeypatch.setattr("specvit.training.loop.time.monotonic", lambda: float(next(seconds) + ahead[0]))
    monkeypatch.setattr("specvit.training.loop.train_step", lambda *_, **__: 1.0)
    probe = Probing.rung

    def slow(*args: Any, **kwargs: Any) -> dict[str, float]:
        ahead[0] += 1000
        return probe(*args, **kwargs)

    monkeypatch.setattr(Probing, "rung", slow)
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run_trial(make_config(), dataset, Interrupted(at_question=4), device=CPU, checkpoint=make_checkpoint(path))

    cost = run_trial(make_config(), dataset, Watching(), device=CPU, checkpoint=make_checkpoint(path)).cost

    assert cost is not None
    assert (cost.seconds, cost.images_per_s) == (STEPS, BATCH_SIZE)
    assert cost.peak_gpu_memory_gib is None


def test_a_rung_of_before_is_told_as_it_was_and_not_probed_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_checkpoint(tmp_path / "state", every_steps=3)
    with pytest.raises(KeyboardInterrupt):
        run_trial(make_config(), dataset, first := Interrupted(at_question=5), device=CPU, checkpoint=checkpoint)
    assert list(first.rungs) == [2, 4]
    eval_backbone: list[int] = []
    probe = Probing.rung
    monkeypatch.setattr(Probing, "rung", lambda *args, **kwargs: eval_backbone.append(1) or probe(*args, **kwargs))
    # Of the same object too, whose notes hold a rung that came after the state was saved.
    again = Interrupted()
    run_trial(make_config(), dataset, again, device=CPU, checkpoint=checkpoint)
    assert again.rungs == first.rungs
    assert len(eval_backbone) == 1
    assert again.steps[0] == (3, STEPS)


@pytest.mark.long
def test_a_trial_whose_state_is_damaged_begins_anew_with_the_same_numbers(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    expected, watching = run_watched(make_config(), dataset)
    with pytest.raises(KeyboardInterrupt):
        run_trial(make_config(), dataset, Interrupted(at_question=5), device=CPU, checkpoint=make_checkpoint(path))
    whole = path.read_bytes()
    for data, identity in ((whole[:-1], "trial"), (whole, "another")):
        path.write_bytes(data)
        again = Interrupted()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            checkpoint = make_checkpoint(path, identity=identity)
            result = run_trial(make_config(), dataset, again, device=CPU, checkpoint=checkpoint)
        assert result == expected
        assert again.rungs == watching.rungs
        assert again.num_asked == STEPS - 1
        assert [record.message.rpartition("; ")[2] for record in caplog.records] == ["training begins anew"]


def test_a_trial_that_is_stopped_by_its_observer_saves_no_more(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "state"
    observer = Watching(stop_after=1)
    result = run_trial(make_config(), dataset, observer, device=CPU, checkpoint=make_checkpoint(path))
    assert result.stopped_at == 1
    assert not path.exists()


def test_floors_keep_no_state(dataset: Dataset, tmp_path: Path) -> None:
    for kind in ("random_init", "raw_pixels"):
        config = make_config(treatment={"kind": kind}, probes={"knn": {}})
        run_trial(config, dataset, Watching(), device=CPU, checkpoint=make_checkpoint(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []
