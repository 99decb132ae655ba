from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from orchestrator.ledger.in_memory import InMemoryLedger
from orchestrator.trials.records import State

from .record_contract import A, B, RecordContract


class TestInMemoryLedger(RecordContract):
    def make(self, _: Path) -> AbstractContextManager[InMemoryLedger]:
        return nullcontext(InMemoryLedger([A, B]))

    def everything(self, record: InMemoryLedger) -> object:
        return [record.state(A), record.state(B), record.num_attempts, dict(record.skipped)]

    def state(self, record: InMemoryLedger, trial_id: str) -> State:
        return record.state(trial_id)


def test_attempts_and_skipped_trials_are_counted() -> None:
    record = InMemoryLedger([A, B])
    record.begin_attempt(A)
    record.begin_attempt(A)
    record.skip([B], "no time")
    assert (record.num_attempts, record.skipped) == (2, {B: "no time"})
