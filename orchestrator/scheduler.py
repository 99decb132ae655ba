"""The one stateful loop: hand out trials, hear of them, judge them, record everything."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.executor import END_STATES, Event, Executor, Job, Reported
from orchestrator.ledger import Ledger
from orchestrator.records import State
from orchestrator.remote_folder import RemoteFolder
from orchestrator.training_states import TrainingStates
from orchestrator.trials import Trial

POLL_S = 0.25


class Judge(Protocol):
    """Decide on running trials; see ``orchestrator.pruning``."""

    def report(self, trial_id: str, step: int, value: float) -> bool:
        """Hear of a rung's metric; return whether the trial is to be pruned."""

    def end(self, trial_id: str, state: State) -> None:
        """Hear that a trial has ended."""


class View(Protocol):
    """Show what goes on; see ``orchestrator.progress``."""

    def submitted(self, trial: Trial) -> None:
        """Hear that a trial was given to a slot."""

    def happened(self, event: Event) -> None:
        """Hear of an event that was recorded."""

    def tick(self) -> None:
        """Hear that time has passed."""


def schedule(
    trials: Sequence[Trial],
    *,
    ledger: Ledger,
    judge: Judge,
    judged_metric: str,
    executor: Executor,
    view: View,
    states: TrainingStates,
    weights: Path | RemoteFolder | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Run trials to their end, in their order, as many at once as there are slots.

    Args:
        trials: What is to run; the ledger knows them already.
        ledger: Where everything is recorded before anything else hears of it.
        judge: Who decides on pruning.
        judged_metric: Name of the rung metric that the judge is told.
        executor: Where trials run. It is not closed here.
        view: Who shows what goes on.
        states: Where trials keep their states while they run.
        weights: Folder that keeps the trained weights, in a folder for each trial; None = they are not kept.
        should_stop: Asked several times a second; a true answer ends the loop at once. What runs then is
            left as running in the ledger, for ``Ledger.release_running``.

    Returns:
        Whether all trials came to an end.
    """
    waiting = deque(trials)
    running: set[str] = set()
    while waiting or running:
        if should_stop():
            return False
        while waiting and len(running) < executor.num_slots:
            trial = waiting.popleft()
            attempt = ledger.begin_attempt(trial.trial_id)
            view.submitted(trial)
            executor.submit(
                Job(
                    trial_id=trial.trial_id,
                    attempt=attempt,
                    label=trial.label,
                    config=trial.config,
                    state=states.file_of(trial.trial_id),
                    weights=None if weights is None else weights / trial.trial_id,
                )
            )
            running.add(trial.trial_id)
        for event in executor.poll(POLL_S):
            if not ledger.record(event):
                continue
            view.happened(event)
            if isinstance(event, Reported) and _is_hopeless(event, judge, judged_metric):
                executor.prune(event.trial_id)
            end = END_STATES.get(type(event))
            if end is not None:
                # Not before the ledger has it: if this process dies here, a result or a state is there.
                states.ended(event)
                running.discard(event.trial_id)
                judge.end(event.trial_id, end)
        view.tick()
    return True


def _is_hopeless(event: Reported, judge: Judge, judged_metric: str) -> bool:
    value = event.metrics.get(judged_metric)
    return value is not None and judge.report(event.trial_id, event.step, value)
