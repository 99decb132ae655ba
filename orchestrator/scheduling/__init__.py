"""Which trial next, whether it goes on, what it may cost; and the same, simulated.

``Scheduler`` is the loop of a run. It owns no workers and decides by values: ``Judge`` says which trials are hopeless,
``Budget`` which seeds still fit, ``TrialDurations`` how long trials take, ``Allocator`` what each one occupies. Whoever
follows a run is a ``SweepCallback``. ``forecast.forecast`` runs the same scheduler on a clock that jumps.

What must hold: an event is on record before anyone hears of it; only ``optuna_pruners`` imports optuna, and that when
there is something to judge.
"""

from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.budget import Budget
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler

__all__ = ["Allocator", "Budget", "Judge", "Scheduler", "SweepCallback", "TrialDurations"]
