"""Whether a trial has learnt, by its metrics alone."""

from __future__ import annotations

import math

import pytest

from specvit.training.learnt import Unlearnt, find_unlearnt, is_learning_metric

UNIFORM = math.log(256)
DINO = {"dino_loss": 3.0, "dino_loss_trivial": UNIFORM, "teacher_spread": 5.0}


@pytest.mark.parametrize(("loss", "learnt"), [(97.9, True), (98.1, False), (100.0, False), (120.0, False)])
def test_a_term_is_learnt_once_it_is_a_fiftieth_below_its_trivial_value(loss: float, learnt: bool) -> None:
    found = find_unlearnt({"x_loss": loss, "x_loss_trivial": 100.0, "loss": 500.0})
    assert found == (() if learnt else (Unlearnt("x_loss", loss, 100.0),))


def test_a_term_that_is_no_number_is_not_learnt_and_one_without_anything_to_learn_does_not_count() -> None:
    (found,) = find_unlearnt({"x_loss": math.nan, "x_loss_trivial": 1.0}) or ()
    assert found.metric == "x_loss"
    assert find_unlearnt({"x_loss": 0.3, "x_loss_trivial": 0.0}) == ()


def test_a_teacher_with_one_target_for_all_images_has_collapsed_however_low_its_loss() -> None:
    assert find_unlearnt(DINO) == ()
    two = math.log(2)  # half of the images at each of two prototypes
    for spread, collapsed in ((1.01 * two, False), (0.99 * two, True), (0.0, True)):
        found = find_unlearnt(DINO | {"dino_loss": 0.0, "teacher_spread": spread})
        assert found == ((Unlearnt("teacher_spread", spread, two),) if collapsed else ())


def test_every_term_is_judged_by_its_own_value() -> None:
    found = find_unlearnt(DINO | {"ibot_loss": 2.73, "ibot_loss_trivial": 2.77, "koleo_loss": 9.0})
    assert [unlearnt.metric for unlearnt in found or ()] == ["ibot_loss"]


def test_nothing_is_said_of_what_recorded_no_trivial_value() -> None:
    assert find_unlearnt({}) is None
    assert find_unlearnt({"loss": 8.3, "miou": 20.0}) is None
    assert find_unlearnt({"own_loss": 8.3}) is None


def test_metrics_of_learning_are_told_from_those_of_probes() -> None:
    assert all(map(is_learning_metric, ("dino_loss", "dino_loss_trivial", "teacher_entropy", "teacher_spread")))
    assert not any(map(is_learning_metric, ("loss", "miou", "knn_top1", "depth_rmse")))
