from __future__ import annotations

import pytest

from orchestrator.reports.rendering.formatting import (
    column_title,
    decimals,
    describe,
    format_change,
    format_metric,
    format_seconds,
    format_size,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("miou", "mIoU (%) ↑"),
        ("depth_rmse", "depth RMSE (m) ↓"),
        ("depth_abs_rel", "depth AbsRel (%) ↓"),
        ("depth_delta1", "depth delta1 (%) ↑"),
        ("own_metric", "own_metric"),
    ],
)
def test_heading_has_title_unit_and_direction_and_of_an_unknown_metric_its_name(name: str, expected: str) -> None:
    assert column_title(name) == expected


@pytest.mark.parametrize(("name", "expected"), [("miou", 1), ("depth_abs_rel", 1), ("depth_rmse", 3), ("own", 3)])
def test_percent_has_one_decimal_and_every_other_unit_three(name: str, expected: int) -> None:
    assert decimals(name) == expected


def test_brief_shows_metres_to_the_millimetre_and_percent_as_asked() -> None:
    assert format_metric("depth_rmse", 0.87654) == "depth_rmse 0.877"
    assert format_metric("depth_rmse", 0.87654, digits=2) == "depth_rmse 0.877"
    assert format_metric("miou", 33.333) == "miou 33.3"
    assert format_metric("loss", 9.876, digits=2) == "loss 9.88"


@pytest.mark.parametrize(
    ("name", "size", "text"),
    [
        ("miou", 2.649, "2.6"),
        ("miou", 0.051, "0.1"),
        ("miou", 0.0449, "0.04"),
        ("miou", 0.00036, "0.0004"),
        ("miou", 0.0, "0.0"),
        ("depth_rmse", 0.00074, "0.001"),
        ("depth_rmse", 0.00042, "0.0004"),
    ],
)
def test_the_size_of_a_difference_never_reads_zero_where_it_is_not(name: str, size: float, text: str) -> None:
    assert format_size(name, size) == text


def test_describe_knows_the_direction_and_goes_by_the_name_otherwise() -> None:
    assert (describe("depth_rmse").unit, describe("depth_rmse").higher_is_better) == ("m", False)
    assert (describe("own").title, describe("own").unit) == ("own", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.0, "0 s"),
        (89.4, "89 s"),
        (90.0, "2 min"),
        (12 * 60.0, "12 min"),
        (89 * 60.0, "89 min"),
        (90 * 60.0, "1 h 30 min"),
        (3 * 3600 + 5 * 60.0, "3 h 05 min"),
    ],
)
def test_durations_are_written_in_the_unit_that_people_would_use(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("low", "high", "digits", "text"),
    [
        (-0.04, 4.7, 1, "+2.4 [+0.0, +4.7]"),
        (0.04, 4.7, 1, "+2.4 [+0.04, +4.7]"),
        (0.004, 4.7, 1, "+2.4 [+0.004, +4.7]"),
        (0.0004, 4.7, 1, "+2.4 [+0.0, +4.7]"),
        (0.0, 4.7, 1, "+2.4 [+0.0, +4.7]"),
        (-4.7, -0.04, 1, "+2.4 [-4.7, -0.04]"),
        (0.0004, 4.7, 3, "+2.400 [+0.0004, +4.700]"),
        (None, None, 1, "+2.4"),
    ],
)
def test_an_interval_that_leaves_zero_out_is_seen_to(
    low: float | None, high: float | None, digits: int, text: str
) -> None:
    assert format_change(2.4, low, high, digits) == text
    assert format_change(2.4, low, high, digits, sign="-") == text.replace("+", "")
