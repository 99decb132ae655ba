"""What a sweep file can say of seeds that grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.sweep.declared.growing_seeds import MAX_LOOKS, GrowingSeeds, read_growth
from orchestrator.sweep.grid import expand
from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.trial import Role


@pytest.mark.parametrize(
    ("given", "looks"),
    [
        ({}, (4, 5, 6, 7, 8, 10, 12, 16)),
        ({"most": 10}, (4, 5, 6, 7, 8, 10)),
        ({"start": 5, "most": 6}, (5, 6)),
        ({"most": 40}, (4, 5, 6, 7, 8, 10, 12, 15, 18, 27, 40)),
        ({"looks": (4, 6, 16)}, (4, 6, 16)),
        ({"method": "confirm", "most": 20}, (4, 20)),
    ],
)
def test_each_look_has_a_quarter_more_and_later_on_half_more(given: dict[str, Any], looks: tuple[int, ...]) -> None:
    assert GrowingSeeds(**given).all_looks == looks


def test_seeds_follow_the_first_one_and_floors_have_those_of_the_start(make_sweep: Callable[..., Sweep]) -> None:
    sweep = make_sweep(seeds={"start": 4, "most": 6, "first": 20})
    assert sweep.seeds == (20, 21, 22, 23, 24, 25)
    seeds: dict[Role, set[int]] = {}
    for trial in expand(sweep):
        seeds.setdefault(trial.role, set()).add(trial.seed)
    assert seeds == {
        Role.BASELINE: {20, 21, 22, 23, 24, 25},
        Role.ARM: {20, 21, 22, 23, 24, 25},
        Role.FLOOR: {20, 21, 22, 23},
    }
    assert make_sweep(seeds=[3, 1]).growth is None


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ({"start": 3}, "seeds.start: must be at least 4, since fewer seeds give no verdict, not 3"),
        ({"start": 4, "most": 4}, "seeds.most: must be more than start, 4, not 4"),
        ({"looks": [4, 8]}, r"seeds.looks: must rise from start, 4, to most, 16, not \[4, 8\]"),
        ({"looks": [4, 8, 8, 16]}, "seeds.looks: must rise from start"),
        ({"method": "confirm", "looks": [4, 8, 16]}, "seeds.looks: must be start and most alone where method is"),
        ({"begin": 4}, r"seeds.begin: unknown field; known: start, most, looks, method, first, seek"),
        ({"seek": "worse"}, r"seeds.seek: must be both or better, not 'worse'"),
        ({"method": "confirm", "seek": "both"}, "seeds.seek: must be left out, for it is for method 'sequential'"),
        ({"most": 2**63 - 1}, "seeds.most: must be at most 1000, not 9223372036854775807"),
        ({"first": 2**63 - 15}, "seeds.first: must leave room for most, 16, seeds up to 9223372036854775807, not"),
        ({"most": 24, "looks": list(range(4, 25))}, "seeds.looks: must be at most 20, not 21"),
        ({"most": "x"}, "seeds.most: must be a whole number, not 'x'"),
        ({"method": "confrm"}, r"seeds.method: must be sequential or confirm, not 'confrm' \(did you mean"),
    ],
)
def test_what_cannot_be_is_told_by_line_and_field(
    make_sweep: Callable[..., Sweep], seeds: dict[str, Any], text: str
) -> None:
    with pytest.raises(SweepFileError, match=rf"tiny\.yaml:\d+: {text}"):
        make_sweep(seeds=seeds)


@pytest.mark.parametrize("most", [5, 33, 100, 1000])
@pytest.mark.parametrize("start", [4, 5, 7, 30])
def test_default_looks_rise_to_the_last_and_are_no_more_than_may_be(start: int, most: int) -> None:
    if start < most:
        looks = GrowingSeeds(start=start, most=most).all_looks
        assert (looks[0], looks[-1], len(looks) <= MAX_LOOKS) == (start, most, True)


def test_where_pruning_is_on_more_seeds_are_for_what_may_be_better(make_sweep: Callable[..., Sweep]) -> None:
    def seek_of(seeds: dict[str, Any], pruning: object) -> str | None:
        growth = make_sweep(seeds=seeds, pruning=pruning).growth
        assert growth is not None
        assert growth.looks == growth.all_looks
        return growth.seek

    assert (seek_of({"most": 8}, False), seek_of({"most": 8}, True)) == ("both", "better")
    assert seek_of({"most": 8, "seek": "both"}, True) == "both"
    assert seek_of({"most": 8, "method": "confirm"}, True) is None


def test_a_ledger_gives_back_what_was_declared() -> None:
    assert read_growth({}) is None
    stored = {"start": 4, "most": 8, "looks": [4, 6, 8], "method": "sequential", "first": 2}
    assert read_growth(stored) == GrowingSeeds(most=8, looks=(4, 6, 8), first=2)
