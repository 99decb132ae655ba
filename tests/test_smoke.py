"""The sweeps of ``sweeps/paper`` run from their files to their tables, on miniatures of their data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator.cli.app import main
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep

from .smoke import miniatures
from .smoke.__main__ import OVERRIDES, PAPER, command, make_data
from .smoke.__main__ import main as smoke

SWEEPS = sorted(path.stem for path in PAPER.glob("*.yaml"))
METRICS = ["knn_top1", "linear_top1", "miou"]

Table = Callable[..., pd.DataFrame]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """Return a function that runs a sweep in miniature, in this process, and reads its table."""

    def run(name: str, *, overrides: tuple[str, ...] = ()) -> pd.DataFrame:
        words = command(name, tmp_path, overrides=overrides)
        monkeypatch.setattr(sys, "argv", ["specsweep", *words, "--executor", "local"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        return pd.read_csv(tmp_path / "results" / f"smoke-{name}" / "table.csv")

    return run


def test_a_paper_sweep_runs_to_its_table(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_figures: None
) -> None:
    monkeypatch.setattr("specvit.data.sources.imagenet.NUM_CLASSES", 40)
    make_data(tmp_path, num_classes=40)
    rows = table("blocks", overrides=("ablate.specialize=[paper]", "floors=[]", "probes.linear.cs=[1.0]"))
    assert list(rows.arm) == ["none", "paper"]
    assert np.isfinite(rows[[f"{metric}_mean" for metric in METRICS]].to_numpy()).all()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_every_arm_of_every_paper_sweep_runs_to_its_table(name: str, table: Table) -> None:
    rows = table(name)
    sets = (f"{path}={value}" for path, _, value in (each.partition("=") for each in OVERRIDES))
    trials = expand(load_sweep(PAPER / f"{name}.yaml", tuple(sets)))
    assert len(rows) == len(trials)
    assert (rows[[f"{metric}_n" for metric in METRICS]] == 1).all(axis=None)
    assert np.isfinite(rows[[f"{metric}_mean" for metric in METRICS]].to_numpy()).all()


def test_overrides_leave_what_is_compared_as_it_is() -> None:
    for name in SWEEPS:
        shipped, small = (load_sweep(PAPER / f"{name}.yaml", sets) for sets in ((), OVERRIDES))
        assert {trial.arm for trial in expand(small)} == {trial.arm for trial in expand(shipped)}
        assert small.groups[0].data.keep == "encoded"  # type: ignore[attr-defined]


def test_miniatures_hold_photographs_as_odd_as_those_of_the_archives(tmp_path: Path) -> None:
    make_data(tmp_path, num_classes=36)
    paths = list((tmp_path / "imagenet").rglob("*.JPEG"))
    assert len({path.read_bytes() for path in paths}) == len(paths) == 2 * 36
    images = [Image.open(path) for path in paths]
    assert {image.mode for image in images} == {"RGB", "L", "CMYK"}
    assert {image.format for image in images} == {"JPEG", "PNG"}
    assert {image.size for image in images} == {*miniatures.SIZES, (60, 44)}
    assert any(image.getexif().get(274) == 6 for image in images)
    masks = [Image.open(path) for path in (tmp_path / "ade20k" / "annotations").rglob("*.png")]
    assert {mask.mode for mask in masks} == {"L", "P"}
    assert {value for mask in masks for value in np.unique(mask).tolist()} == {0, 1, 2, 3, 4, 5, 150}


def test_a_sweep_that_is_not_of_the_paper_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        smoke(["quick"])
    assert "SWEEP must be among blocks, components, high_norm, modes, not quick" in capsys.readouterr().err
