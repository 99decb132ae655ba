from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from orchestrator.cli.app import main
from orchestrator.reports.curves import COLUMNS, CSV_NAME, FIGURE_NAME, build_curves, make_figure, write_curves
from orchestrator.trials.records import Report, State, TrialRecord

from .test_ablation_table import make_record


def _with_rungs(record: TrialRecord, *values: float, metric: str = "miou") -> TrialRecord:
    reports = tuple(Report(10 * (i + 1), {metric: value, "loss": 1.0}) for i, value in enumerate(values))
    return dataclasses.replace(record, reports=reports)


@pytest.fixture
def records() -> list[TrialRecord]:
    return [
        _with_rungs(make_record("none", 0, 1.0, role="baseline"), 10.0, 20.0),
        _with_rungs(make_record("none", 1, 1.0, role="baseline"), 14.0, 30.0),
        _with_rungs(make_record("qkv@all", 0, None, state=State.PRUNED), 4.0),
        make_record("raw pixels", 0, 1.0, role="floor"),
    ]


def test_curves_have_a_row_per_trial_rung_and_metric(records: list[TrialRecord]) -> None:
    curves = build_curves(records)
    assert tuple(curves.columns) == COLUMNS
    assert len(curves) == (2 + 2 + 1) * 2
    rows = curves[curves["metric"] == "miou"][["arm", "seed", "state", "step", "value"]]
    assert rows.values.tolist() == [
        ["none", 0, "done", 10, 10.0],
        ["none", 0, "done", 20, 20.0],
        ["none", 1, "done", 10, 14.0],
        ["none", 1, "done", 20, 30.0],
        ["qkv@all", 0, "pruned", 10, 4.0],
    ]


def test_the_figure_shows_means_over_seeds_and_their_range(records: list[TrialRecord]) -> None:
    figure = make_figure(build_curves(records))
    panel = next(axes for axes in figure.axes if axes.get_ylabel() == "mIoU (%) ↑")
    none, pruned = panel.get_lines()
    assert none.get_label() == "none"
    assert to_rgb(none.get_color()) == (0, 0, 0)
    assert (none.get_xdata().tolist(), none.get_ydata().tolist()) == ([10, 20], [12.0, 25.0])
    assert (pruned.get_xdata().tolist(), pruned.get_ydata().tolist()) == ([10], [4.0])
    band = panel.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (10.0, 30.0)


def test_a_mean_over_surviving_seeds_is_drawn_apart_and_says_how_many_they_are() -> None:
    records = [
        _with_rungs(make_record("none", seed, 1.0, role="baseline"), 10.0, 20.0, 30.0) for seed in range(3)
    ] + [
        _with_rungs(make_record("qkv@all", 0, None, state=State.PRUNED), 4.0),
        _with_rungs(make_record("qkv@all", 1, 1.0), 34.0, 44.0, 46.0),
    ]
    figure = make_figure(build_curves(records))
    panel = next(axes for axes in figure.axes if axes.get_ylabel() == "mIoU (%) ↑")
    none, whole, surviving = panel.get_lines()
    assert none.get_ydata().tolist() == [10.0, 20.0, 30.0]
    # The mean of both seeds is 19; that of the one that was not pruned does not go on from it.
    assert (whole.get_xdata().tolist(), whole.get_ydata().tolist()) == ([10], [19.0])
    assert (surviving.get_xdata().tolist(), surviving.get_ydata().tolist()) == ([20, 30], [44.0, 46.0])
    assert (surviving.get_linestyle(), surviving.get_markerfacecolor()) == ("--", "white")
    assert [text.get_text() for text in panel.texts] == ["n = 1", "n = 1"]
    assert panel.get_xticks().tolist() == [10, 20, 30]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["none, n = 3", "qkv@all, n = 2"]


def test_of_one_rung_arms_stand_side_by_side_each_with_the_range_of_its_seeds() -> None:
    records = [_with_rungs(make_record("none", seed, 1.0, role="baseline"), value) for seed, value in enumerate((1, 3))]
    records += [_with_rungs(make_record("qkv@all", seed, 1.0), value) for seed, value in enumerate((2, 2, 8))]
    figure = make_figure(build_curves(records))
    panel = next(axes for axes in figure.axes if axes.get_ylabel() == "mIoU (%) ↑")
    points = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in panel.get_lines()]
    assert points == [([9.5], [2.0]), ([10.5], [4.0])]
    bars = [bar.get_segments()[0][:, 1].tolist() for bar in panel.collections]
    assert bars == [[1.0, 3.0], [2.0, 8.0]]
    assert panel.get_xticks().tolist() == [10]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["none, n = 2", "qkv@all, n = 3"]
    assert legend.get_title().get_text() == "mean over n seeds; bar: their range"


def test_of_many_rungs_some_have_ticks() -> None:
    figure = make_figure(build_curves([_with_rungs(make_record("none", 0, 1.0), *range(20))]))
    assert figure.axes[0].get_xticks().tolist() == [10, 40, 70, 100, 130, 160, 190]


def test_a_panel_says_unit_and_direction_of_its_metric() -> None:
    record = _with_rungs(make_record("none", 0, 1.0), 0.9, 0.8, metric="depth_rmse")
    labels = [axes.get_ylabel() for axes in make_figure(build_curves([record])).axes]
    assert labels == ["depth RMSE (m) ↓", "loss"]


def test_written_curves_read_back(records: list[TrialRecord], tmp_path: Path) -> None:
    assert write_curves(tmp_path, records) == (tmp_path / CSV_NAME, tmp_path / FIGURE_NAME)
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO((tmp_path / CSV_NAME).read_text()), keep_default_na=False),
        build_curves(records).astype({"value": float}),
    )
    assert matplotlib.image.imread(tmp_path / FIGURE_NAME).shape[2] >= 3


def test_without_a_rung_nothing_is_written(tmp_path: Path) -> None:
    assert write_curves(tmp_path, [make_record("none", 0, 1.0)]) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_group_has_a_row_of_panels_and_many_arms_have_colours_of_their_own() -> None:
    records = [
        _with_rungs(make_record(f"arm {number}", 0, 1.0, group=group), 1.0, metric="knn_top1")
        for group in ("lr=1", "lr=2")
        for number in range(14)
    ]
    figure = make_figure(build_curves(records))
    assert [axes.get_title() for axes in figure.axes] == ["lr=1", "lr=1", "lr=2", "lr=2"]
    assert len({line.get_color() for line in figure.axes[0].get_lines()}) == 14


@pytest.mark.long
def test_the_command_writes_beside_the_ledger(
    write_sweep: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def call(*arguments: Any) -> object:
        monkeypatch.setattr("sys.argv", ["specsweep", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    path = write_sweep(tmp_path, floors=[], seeds=1)
    assert call("curves", path, "--results", tmp_path) == 2
    assert call("run", path, "--results", tmp_path, "--executor", "local") == 0
    folder = tmp_path / "tiny"
    written = {name: (folder / name).read_bytes() for name in (CSV_NAME, FIGURE_NAME)}
    assert str(folder / FIGURE_NAME) in capsys.readouterr().out.replace("\n", "")
    for name in written:
        (folder / name).unlink()
    assert call("curves", folder) == 0
    assert {name: (folder / name).read_bytes() for name in written} == written
    study = tmp_path / "study"
    assert call("publish", folder, "--to", study) == 0
    (study / FIGURE_NAME).unlink()
    assert call("curves", study) == 0  # from the rungs there, without a ledger
    assert {name: (study / name).read_bytes() for name in written} == written
