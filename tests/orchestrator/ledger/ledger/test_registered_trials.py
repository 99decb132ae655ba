"""Which sweep and which trials a ledger is of, and what of them may change."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Finished
from orchestrator.trials.records import State

from ..record_contract import A, B
from .known_trials import INFO, PROVENANCE, TRIALS, make_trial, record_of


def test_registered_trials_wait_in_their_order_with_all_that_is_known_of_them(ledger: Ledger) -> None:
    for record, trial in zip(ledger.records(), TRIALS, strict=True):
        assert asdict(record.trial).items() <= vars(trial).items()
        assert (record.state, record.num_attempts, record.reports) == (State.WAITING, 0, ())
        assert record.trial.extra_parameters_percent == 2.5


def test_sweep_and_provenance_come_back_as_given(ledger: Ledger, path: Path) -> None:
    ledger.register(INFO, TRIALS, PROVENANCE)
    with Ledger.read(path) as reader:
        assert reader.sweep() == INFO
        assert reader.provenance() == (PROVENANCE, PROVENANCE)


def test_newest_provenance_is_that_of_the_run_which_began_the_newest_attempt(ledger: Ledger) -> None:
    assert ledger.newest_provenance() is None
    computing = replace(PROVENANCE, argv=("specsweep", "run", "computing.yaml"))
    ledger.register(INFO, TRIALS, computing)
    ledger.begin_attempt(A)
    ledger.register(INFO, TRIALS, PROVENANCE)  # a run that finds nothing to do
    assert ledger.newest_provenance() == computing


def test_trials_no_longer_in_the_file_leave_the_records_and_come_back_with_their_results(ledger: Ledger) -> None:
    ledger.record(Finished(A, ledger.begin_attempt(A), {"miou": 3.0}, 1.0, 1.0))
    new = make_trial("mlp@all")
    ledger.register(INFO, (new, TRIALS[1]), PROVENANCE)
    assert [record.trial.trial_id for record in ledger.records()] == [new.trial_id, B]
    ledger.register(INFO, (TRIALS[1], TRIALS[0]), PROVENANCE)
    assert [record.trial.trial_id for record in ledger.records()] == [B, A]
    assert record_of(ledger, A).metrics == {"miou": 3.0}


def test_registering_again_renames_what_a_new_axis_renamed(ledger: Ledger) -> None:
    renamed = dataclasses.replace(TRIALS[0], group="model.scale=nano", label="nano none seed 0")
    ledger.register(INFO, (renamed,), PROVENANCE)
    assert [(record.trial.group, record.trial.label) for record in ledger.records()] == [(renamed.group, renamed.label)]


def test_another_sweep_is_refused_and_nothing_is_changed(ledger: Ledger, path: Path) -> None:
    before = ledger.records()
    with pytest.raises(LedgerError, match="'components', not of 'scales'") as caught:
        ledger.register(dataclasses.replace(INFO, name="scales"), TRIALS[:1], PROVENANCE)
    assert str(path) in str(caught.value)
    assert (ledger.records(), ledger.sweep(), len(ledger.provenance())) == (before, INFO, 1)


def test_changed_data_are_refused_naming_both_fingerprints(ledger: Ledger) -> None:
    changed = dataclasses.replace(INFO, data_fingerprints={"group": "beef"})
    with pytest.raises(LedgerError, match=r"f00d.*beef"):
        ledger.register(changed, TRIALS, PROVENANCE)
    assert ledger.sweep() == INFO


def test_changed_data_of_a_group_that_left_the_file_are_not_refused(ledger: Ledger) -> None:
    other = dataclasses.replace(make_trial("none"), trial_id="other", group_id="other")
    changed = dataclasses.replace(INFO, data_fingerprints={"other": "beef"})
    ledger.register(changed, (other,), PROVENANCE)
    assert ledger.sweep().data_fingerprints == {"group": "f00d", "other": "beef"}


def test_ledger_without_a_sweep_says_so(path: Path) -> None:
    with Ledger.open(path) as ledger, pytest.raises(LedgerError, match="no sweep"):
        ledger.sweep()
