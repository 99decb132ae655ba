"""The one durable record of a sweep, in SQLite. The only SQL, but for snapshots of its mirror and files of Optuna's.

Front door: ``Ledger.open`` writes, ``Ledger.read`` reads, also while another process writes.
What must hold: an event counts only while its attempt is the newest of its trial and has not ended; what a call has
recorded survives a power cut; a ledger that is damaged, or was made by others, is refused before anything is read from
it or written to it; ledgers of all older schemas are read.
"""

# Lazily, since modules of this room import each other.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.ledger.errors import LedgerError, LedgerWriteError
    from orchestrator.ledger.in_memory import InMemoryLedger
    from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
    from orchestrator.ledger.provenance import Provenance, collect_provenance
    from orchestrator.ledger.reader import LedgerReader
    from orchestrator.ledger.registration import SweepInfo

__all__ = [
    "LEDGER_NAME",
    "InMemoryLedger",
    "Ledger",
    "LedgerError",
    "LedgerReader",
    "LedgerWriteError",
    "Provenance",
    "SweepInfo",
    "collect_provenance",
]

_HOMES = {
    "LEDGER_NAME": "ledger",
    "InMemoryLedger": "in_memory",
    "Ledger": "ledger",
    "LedgerError": "errors",
    "LedgerReader": "reader",
    "LedgerWriteError": "errors",
    "Provenance": "provenance",
    "SweepInfo": "registration",
    "collect_provenance": "provenance",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
