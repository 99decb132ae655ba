from __future__ import annotations

import math

import pytest

from orchestrator.reports.drawing.axes import Axis, cut_text, round_values, spanning, text_width, tick_text


def test_places_are_in_proportion_and_what_is_outside_lies_at_the_end() -> None:
    axis = Axis(-2.0, 8.0, 100.0, 200.0)
    assert [axis.place(value) for value in (-2.0, 0.0, 3.0, 8.0, 1e9, -math.inf)] == [100, 120, 150, 200, 200, 100]
    assert (axis.holds(8.0), axis.holds(8.1)) == (True, False)


def test_an_axis_upwards_runs_from_below() -> None:
    assert Axis(0.0, 10.0, 300.0, 100.0).place(2.5) == 250.0


def test_an_axis_that_bends_is_an_arsinh() -> None:
    axis = Axis(0.0, math.sinh(2.0), 0.0, 100.0, bends=True)
    assert axis.place(math.sinh(1.0)) == pytest.approx(50.0)
    assert Axis(-0.5, 90.0, 0.0, 1.0, bends=True).ticks(9) == [0, 1, 3, 10, 30]


def test_a_span_holds_all_that_is_finite_with_a_margin() -> None:
    axis = spanning([1.0, math.nan, 3.0, math.inf], 0.0, 1.0, margin=0.25)
    assert (axis.low, axis.high) == (0.5, 3.5)
    assert spanning([5.0], 0.0, 1.0).place(5.0) == 0.5
    assert spanning([], 0.0, 1.0).low < 0.0 < 1.0 < spanning([], 0.0, 1.0).high


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (-3.4, 3.6, 5, [-2, 0, 2]),
        (-3.4, 3.6, 9, [-3, -2, -1, 0, 1, 2, 3]),
        (0.0, 0.0123, 4, [0.0, 0.005, 0.01]),
        (1e6, 3e6, 2, [1e6, 2e6, 3e6]),
        (1.0, 1.0, 5, []),
    ],
)
def test_ticks_are_multiples_of_1_2_or_5(low: float, high: float, most: int, expected: list[float]) -> None:
    assert round_values(low, high, most) == pytest.approx(expected)


def test_a_tick_has_few_digits_and_a_sign_where_it_is_a_difference() -> None:
    texts = [tick_text(value, signed=True) for value in (-2.0, 0.0, -0.0, 0.30000000000000004)]
    assert texts == ["-2", "0", "0", "+0.3"]
    assert (tick_text(200.0), tick_text(1234567.0)) == ("200", "1.23457e+06")


def test_a_text_that_does_not_fit_keeps_its_beginning_and_its_end() -> None:
    text = "norm@first-third+qkv@first-third+mlp@first-third"
    shown = cut_text(text, 20.0, 1.0)
    assert text_width(shown) <= 20.0
    head, tail = shown.split("…")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert cut_text(text, 100.0, 1.0) == text
