"""What a first run does and writes, and what a later one of the same or a changed file adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.bundle import files_of_ledger
from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.publish import publish
from orchestrator.run import Datasets, load_datasets
from orchestrator.scheduling.jobs import weights_name
from orchestrator.storage.uncommitted import read_patches
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial
from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.trial import Observer, TrialResult

from ..made_up import made_up_trial
from .driver import Driver, results


@pytest.mark.usefixtures("made_up")
def test_a_first_run_does_every_trial_in_order_and_writes_the_tables(driver: Driver, sweep: Sweep) -> None:
    outcome = driver.run(sweep)
    wanted = [trial.label for trial in expand(sweep)]
    assert driver.submitted == [record.trial.label for record in outcome.records] == wanted
    assert (outcome.num_run, outcome.finished, outcome.num_failed) == (8, True, 0)
    assert driver.loads == [8]
    assert [record.state for record in outcome.records] == [State.DONE] * 8
    assert outcome.records[0].metrics == {"knn_top1": 4.0, "loss": 1.0}
    table = pd.read_csv(driver.folder / "table.csv")
    # "none" has 4 letters, "norm@all" 8; the seeds add 0 and 10.
    assert table.set_index("arm")["knn_top1_mean"][["none", "norm@all"]].tolist() == [9.0, 13.0]
    assert "norm@all" in (driver.folder / "table.md").read_text()


@pytest.mark.usefixtures("made_up")
def test_a_second_run_does_nothing_and_finds_the_same(driver: Driver, sweep: Sweep) -> None:
    first = driver.run(sweep)
    table = (driver.folder / "table.csv").read_bytes()
    second = driver.run(sweep)
    assert (driver.loads, driver.executors) == ([], [])
    assert (second.num_run, second.finished) == (0, True)
    assert second.records == first.records
    assert (driver.folder / "table.csv").read_bytes() == table


@pytest.mark.usefixtures("made_up")
def test_a_run_that_has_something_to_do_keeps_what_no_commit_has_of_the_code(
    driver: Driver, sweep: Sweep, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty = replace(collect_provenance(), git_sha="0" * 40, git_dirty=True)
    monkeypatch.setattr("orchestrator.run.collect_provenance", lambda *_: dirty)
    kept = []
    for changes, each in ((b"1", sweep), (b"2", sweep), (b"3", make_sweep(seeds=3))):
        monkeypatch.setattr("orchestrator.storage.uncommitted.find_changes", lambda changes=changes: changes)
        driver.run(each)
        kept.append(sorted(content[-1:] for content in read_patches(driver.folder).values()))
    assert kept == [[b"1"], [b"1"], [b"1", b"3"]]
    with Ledger.read(driver.folder / "ledger.sqlite") as ledger:
        published = publish(ledger, driver.folder.parent / "studies" / "tiny")
        assert not any("uncommitted" in str(path) for path in published)
        assert files_of_ledger(ledger).keys() >= read_patches(driver.folder).keys()


@pytest.mark.usefixtures("made_up")
def test_an_arm_that_is_added_runs_alone(
    driver: Driver, sweep: Sweep, make_sweep: Callable[..., Sweep]
) -> None:
    before = results(driver.run(sweep))
    outcome = driver.run(make_sweep(ablate={"components": ["none", "norm", "qkv"]}))
    assert driver.submitted == ["nano qkv@all seed 0", "nano qkv@all seed 1"]
    after = results(outcome)
    assert len(after) == 10
    assert {label: after[label] for label in before} == before


@pytest.mark.usefixtures("made_up")
def test_a_seed_that_is_added_runs_alone(
    driver: Driver, sweep: Sweep, make_sweep: Callable[..., Sweep]
) -> None:
    driver.run(sweep)
    driver.run(make_sweep(seeds=3))
    assert len(driver.submitted) == 4
    assert all(label.endswith("seed 2") for label in driver.submitted)


@pytest.mark.usefixtures("made_up")
def test_an_arm_that_is_removed_leaves_the_table_but_its_results_are_kept(
    driver: Driver, sweep: Sweep, make_sweep: Callable[..., Sweep]
) -> None:
    full = driver.run(sweep)
    smaller = driver.run(make_sweep(ablate={"components": ["none"]}))
    assert driver.executors == []
    assert {record.trial.arm for record in smaller.records} == {"none", "random init", "raw pixels"}
    assert "norm@all" not in pd.read_csv(driver.folder / "table.csv")["arm"].tolist()
    again = driver.run(sweep)
    assert driver.executors == []
    assert again.records == full.records


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("name", ["sweep.yaml", "environment.json", "table.md"])
def test_a_run_that_finds_all_done_writes_what_one_that_died_at_its_end_did_not(
    name: str, driver: Driver, sweep: Sweep
) -> None:
    driver.run(sweep)
    before = (driver.folder / name).read_bytes()
    (driver.folder / name).unlink()
    assert driver.run(sweep).num_run == 0
    assert (driver.folder / name).read_bytes() == before


@pytest.mark.usefixtures("made_up")
def test_data_that_changed_since_the_first_run_are_refused(
    driver: Driver, sweep: Sweep, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.run(sweep)

    def changed(trials: Sequence[Trial]) -> Datasets:
        return {source: replace(data, fingerprint="other") for source, data in load_datasets(trials).items()}

    monkeypatch.setattr(driver, "_load_data", changed)
    with pytest.raises(LedgerError, match="data have changed"):
        driver.run(make_sweep(seeds=3))


def test_weights_are_kept_beside_the_tables_where_the_file_asks_for_them(
    driver: Driver, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path | None] = []

    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **others: Any) -> TrialResult:
        folders.append(others["weights"])
        return made_up_trial(config, dataset, observer)

    monkeypatch.setattr("specvit.trial.run_trial", body)
    sweep = make_sweep(floors=[], seeds=1, ablate={"components": ["none"]}, keep_weights=True)
    (record,) = driver.run(sweep).records
    assert folders == [driver.folder.resolve() / "weights" / weights_name(record.trial)]
    # Whether weights are kept is no part of what a trial is.
    assert driver.run(make_sweep(floors=[], seeds=1, ablate={"components": ["none"]})).num_run == 0
