"""Boundaries of declared looks: Pocock's levels, the spending functions, and one look that is Dunnett's test."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import scipy.stats

from orchestrator.statistics.dunnett import dunnett_critical
from orchestrator.statistics.looks import design_looks

LARGE = 10_000


@pytest.mark.parametrize(("num_looks", "level"), [(2, 0.0294), (3, 0.0221), (4, 0.0182)])
def test_one_arm_with_a_known_deviation_has_pococks_levels(num_looks: int, level: float) -> None:
    design = design_looks([LARGE * (place + 1) for place in range(num_looks)], 1, spending="pocock")
    assert design.levels == (pytest.approx(level, abs=4e-4),) * num_looks
    assert design.spent[-1] == pytest.approx(0.05, abs=1e-4)


def test_one_arm_has_the_boundaries_of_lan_and_demets() -> None:
    # R: gsDesign(k = 2, test.type = 2, alpha = .025, sfu = sfLDOF)$upper$bound: 2.962588, 1.968596.
    design = design_looks([LARGE, 2 * LARGE], 1, spending="obrien_fleming")
    assert design.critical == pytest.approx((2.9626, 1.9686), abs=0.01)


def test_one_arm_that_spends_evenly_has_the_boundaries_of_two_correlated_normal_numbers() -> None:
    first, last = design_looks([LARGE, 2 * LARGE], 1).critical
    assert first == pytest.approx(scipy.stats.norm.isf(0.0125), abs=1e-3)
    both = scipy.stats.multivariate_normal(cov=[[1.0, math.sqrt(0.5)], [math.sqrt(0.5), 1.0]])
    assert both.cdf([first, last], lower_limit=[-first, -last]) == pytest.approx(0.95, abs=1e-3)


def test_one_look_is_dunnetts_test() -> None:
    assert design_looks([6], 30).critical == pytest.approx((dunnett_critical(30, 150),), abs=1e-3)


def test_several_arms_spend_the_error_as_it_is_due() -> None:
    design = design_looks([4, 8, 16], 10, spending="obrien_fleming")
    due = [4 * scipy.stats.norm.sf(2.241403 / math.sqrt(share)) for share in (0.25, 0.5, 1.0)]
    assert design.spent == pytest.approx(due, abs=6e-4)
    assert design.critical[0] > design.critical[1] > design.critical[2] > dunnett_critical(10, 150)
    # With fewer degrees of freedom the same level takes a larger t.
    assert design.critical_at(2, 100) > design.critical[2]
    assert design_looks([4, 8, 16], 10).spent == pytest.approx([0.0125, 0.025, 0.05], abs=1e-3)


@pytest.mark.parametrize("num_arms", [1, 10])
def test_a_first_look_far_from_the_last_spends_hardly_anything(num_arms: int) -> None:
    # O'Brien and Fleming: 4 Phi(-2.24 x 4) = 6e-19 at a sixteenth of the seeds, which no double tells from 0.
    design = design_looks([4, 8, 16, 32, 64], num_arms, spending="obrien_fleming")
    assert 0 <= design.spent[0] < 1e-5
    assert all(earlier > later > 0 for earlier, later in pairwise(design.critical))
    assert design.spent[-1] == pytest.approx(0.05, abs=1e-3)


def test_the_same_looks_have_the_same_boundaries() -> None:
    assert design_looks([4, 8, 16], 10) is design_looks((4, 8, 16), 10)


@pytest.mark.parametrize(
    ("looks", "options", "text"),
    [
        ([], {}, "looks must rise"),
        ([1, 4], {}, "looks must rise from at least 2 seeds, not \\[1, 4\\]"),
        ([4, 4], {}, "looks must rise"),
        ([4], {"num_arms": 0}, "num_arms must be at least 1"),
        ([4], {"spending": "all"}, "spending must be"),
        ([4], {"confidence": 1.0}, "confidence must be in"),
    ],
)
def test_looks_that_cannot_be_are_refused(looks: list[int], options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        design_looks(looks, **{"num_arms": 3, **options})
