"""Schedules at points that can be worked out by hand."""

from __future__ import annotations

import math

import pytest

from specvit.training.schedules import cosine, linear, warmup_cosine


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 2.0), (1 / 3, 1.75), (0.5, 1.5), (2 / 3, 1.25), (1.0, 1.0)]
)
def test_cosine_falls_along_half_a_wave(progress: float, value: float) -> None:
    assert cosine(progress, 2.0, 1.0) == pytest.approx(value)


def test_cosine_also_rises() -> None:
    assert cosine(0.25, 0.992, 1.0) == pytest.approx(1 - 0.008 * 0.5 * (1 + math.sqrt(0.5)))


@pytest.mark.parametrize(
    ("progress", "value"),
    [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.6, 0.55), (1.0, 0.1)],
)
def test_warmup_rises_linearly_then_falls_on_a_cosine(progress: float, value: float) -> None:
    assert warmup_cosine(progress, peak=1.0, end=0.1, warmup=0.2) == pytest.approx(value)


def test_without_warmup_a_run_starts_at_the_peak() -> None:
    assert warmup_cosine(0.0, peak=3.0, end=0.0, warmup=0.0) == 3.0


def test_a_run_that_is_all_warmup_ends_at_the_peak() -> None:
    assert warmup_cosine(0.5, peak=3.0, end=0.0, warmup=1.0) == 1.5
    assert warmup_cosine(1.0, peak=3.0, end=0.0, warmup=1.0) == 3.0


@pytest.mark.parametrize(("progress", "value"), [(0.0, 0.04), (0.15, 0.055), (0.3, 0.07), (0.9, 0.07)])
def test_linear_moves_until_its_share_and_then_stays(progress: float, value: float) -> None:
    assert linear(progress, 0.04, 0.07, until=0.3) == pytest.approx(value)


def test_linear_over_no_time_is_at_its_end() -> None:
    assert linear(0.0, 0.04, 0.07, until=0.0) == 0.07
