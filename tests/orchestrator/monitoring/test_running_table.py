from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from orchestrator.monitoring.running_table import RunningTable, shortened
from orchestrator.monitoring.sweep_progress import RunningTrial
from orchestrator.trials.trial import Role

LONG = "micro objective.lr=0.003 norm@all+qkv(lora:8)@first-third+mlp@all seed 12"


def lines(*trials: RunningTrial, width: int) -> list[str]:
    file = StringIO()
    Console(file=file, width=width, color_system=None, highlight=False).print(RunningTable(trials))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def trial(label: str, metric: str = "depth_rmse 0.123") -> RunningTrial:
    how_far: dict[str, Any] = {"step": 119_999, "steps": 120_000, "images_per_s": 12_345.6}
    return RunningTrial(label, "group", Role.ARM, 0.0, last_metric=metric, **how_far)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_number_and_no_seed_is_cut_however_narrow_the_terminal(width: int) -> None:
    head, line = lines(trial(LONG), width=width)
    assert head.split() == ["trial", "step", "images/s", "last", "rung"]
    for whole in (" seed 12 ", "119999/120000", "12346", "depth_rmse 0.123"):
        assert whole in f"{line} "
    assert max(map(len, (head, line))) <= width


def test_the_bar_goes_before_a_label_has_fewer_than_30_characters() -> None:
    (_, wide), (_, narrow) = lines(trial(LONG), width=100), lines(trial(LONG), width=80)
    assert "━" in wide
    assert "━" not in narrow
    # The numbers take 13 + 8 + 16 characters, the space beside each column 2: of 80 there are 35 for the label.
    assert narrow.split("  ")[0].strip() == "micro objective.lr=0.003 n… seed 12"
    assert len("micro objective.lr=0.003 n… seed 12") == 35


@pytest.mark.parametrize(
    ("label", "width", "short"),
    [
        ("nano none seed 1", 16, "nano none seed 1"),
        ("nano norm@all seed 1", 16, "nano nor… seed 1"),
        ("nano norm@all seed 1", 3, "… seed 1"),
        ("no number", 5, "…no number"),
    ],
)
def test_a_label_is_shortened_before_its_seed(label: str, width: int, short: str) -> None:
    assert shortened(label, width) == short
