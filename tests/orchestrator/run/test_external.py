"""A finished backbone from elsewhere beside the arms of a sweep: its row, and probes that come later."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.plan_view import render_plan
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.plan import make_plan
from orchestrator.publish import publish
from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.optuna_export.studies import read_studies
from orchestrator.reports.rendering.terminal_table import render_rich
from orchestrator.reports.result_files import render_json
from orchestrator.sweep.grid import expand
from orchestrator.sweep.pretrained import pin_checkpoints
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import State
from specvit.checkpoints import save_model
from specvit.data.sources.scenes import Scenes
from specvit.device import select_device
from specvit.models.config import VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit
from specvit.probing import Probing

from .driver import Driver

PROBES: dict[str, Any] = {"knn": {}}
MORE: dict[str, Any] = {"knn": {}, "clustering": {}}


@pytest.fixture
def external(make_sweep: Callable[..., Sweep], tmp_path: Path) -> Callable[..., Sweep]:
    """Make sweeps with a backbone that was saved before."""
    path = tmp_path / "student.safetensors"
    save_model(build_vit(VitConfig(SCALES["nano"], 32, 8), seed=5), path)
    fields = {"external": [{"name": "mine", "checkpoint": str(path)}], "rungs": {"count": 1}}
    return lambda **sections: make_sweep(**(fields | sections))


@pytest.mark.usefixtures("made_up")
def test_its_row_is_in_every_table_without_a_difference(
    driver: Driver, external: Callable[..., Sweep]
) -> None:
    outcome = driver.run(external())
    (record,) = [record for record in outcome.records if record.trial.arm == "mine"]
    assert (record.state, record.metrics) == (State.DONE, {"knn_top1": 4.0, "loss": 1.0})
    tables = build_tables(outcome.records, outcome.info.metrics)
    row = tables[""].rows[-1]
    assert (row.arm, row.role, row.seeds, row.metrics["knn_top1"].difference) == ("mine", "external", 1, None)
    note = "Rows marked (external) are backbones that were trained elsewhere."
    markdown = (driver.folder / "table.md").read_text()
    assert re.search(r"\| `mine` \(external\) \| 4\.0 \|  \| [+-][0-9.]+% \| 1/1 \|", markdown)
    assert note in markdown
    *_, of_csv = csv.DictReader((driver.folder / "table.csv").read_text().splitlines())
    assert [of_csv[name] for name in ("arm", "role", "knn_top1_mean", "knn_top1_sd", "knn_top1_diff")] == [
        *("mine", "external", "4.0", "", ""),
    ]
    (table,) = json.loads(render_json(tables, outcome.info))["tables"]
    assert table["external_note"].startswith(note)
    console = Console(file=io.StringIO(), width=200)
    console.print(render_rich(tables, outcome.info))
    assert "mine (external)" in console.file.getvalue()


@pytest.mark.long
@pytest.mark.usefixtures("made_up")
def test_plans_studies_and_what_is_published_have_it_too(
    driver: Driver, external: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = external()
    plan = make_plan(sweep, results_root=driver.folder.parent)
    (arm,) = [arm for arm in plan.arms if arm.role == "external"]
    assert (arm.arm, arm.num_trials, plan.forecast.num_pending) == ("mine", 1, 9)
    console = Console(file=io.StringIO(), width=120)
    console.print(render_plan(plan))
    assert "floors and external backbones (one trial each), 2 seeds, 9 trials, 9 to run" in console.file.getvalue()
    driver.run(sweep)
    with Ledger.read(driver.folder / LEDGER_NAME) as ledger:
        published = publish(ledger, tmp_path / "published")
        (study,) = read_studies(ledger)
    assert "table.md" in {path.name for path in published}
    assert study.attributes["external:mine"]["mean"] == 4.0
    assert {trial.user_attrs["arm"] for trial in study.trials} == {"none", "norm@all"}
    assert make_plan(sweep, results_root=driver.folder.parent).forecast.num_pending == 0
    assert driver.run(sweep).num_run == 0


@pytest.mark.long
def test_a_probe_that_is_added_runs_alone_with_the_numbers_of_the_probes_by_hand(
    driver: Driver, external: Callable[..., Sweep]
) -> None:
    sections: dict[str, Any] = {"seeds": 1, "floors": [], "ablate": {"components": ["none"]}}
    first = driver.run(external(probes=PROBES, **sections))
    later = driver.run(external(probes=MORE, **sections))
    assert driver.submitted == ["nano none seed 0", "mine (external)"]
    before, after = ({record.trial.arm: record for record in each.records}["mine"] for each in (first, later))
    assert after.trained_by == before.trial.trial_id
    assert after.added_later == {"clustering_miou", "clustering_nmi"}
    trials = expand(pin_checkpoints(external(probes=MORE, **sections)))
    config = next(trial.config for trial in trials if trial.arm == "mine")
    by_hand = Probing(config, Scenes(num_train=64, num_val=32).load(), {})
    model = build_vit(VitConfig(SCALES["nano"], 32, 8), seed=5)
    assert after.metrics == by_hand.backbone(model, device=select_device())
