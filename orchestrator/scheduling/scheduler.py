"""The one stateful loop: hand out trials, hear of them, judge them, record everything, and answer what goes wrong."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.execution.executor import Executor, Job
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.budget import Budget, Work
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.longest_first import LongestFirst
from orchestrator.scheduling.protocols import Judge, Record, View
from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.storage.command_inbox import Cancel, Command, Prune, Retry
from orchestrator.storage.remote_folder import RemoteFolder
from orchestrator.sweep.schema import Limits
from orchestrator.trials.events import END_STATES, Event, Failed, Finished, Progressed, Pruned, Reported
from orchestrator.trials.records import Cause, State
from orchestrator.trials.trial import Trial

POLL_S = 0.25

MAX_NODE_LOSSES = 20
"""How often a trial is tried again because its machine was lost: it may be the trial that brings machines down."""

STANDSTILL_S = 60.0
"""Time without a running trial after which people are told what the next one waits for."""

_LOG = logging.getLogger(__name__)

_MEMORY = (Cause.GPU_MEMORY, Cause.HOST_MEMORY)


@dataclass
class _Running:
    """Hold a trial that runs, and when something was heard of it; None = its worker has not begun."""

    trial: Trial
    job: Job
    begun_s: float
    heard_s: float | None = None
    step: int = 0

    def hear(self, event: Event, now_s: float) -> None:
        """Take note of an event."""
        self.heard_s = now_s
        if isinstance(event, Progressed):
            self.step = event.step

    def work_at(self, now_s: float) -> Work:
        """Return what the attempt has taken so far."""
        return Work(now_s - self.begun_s, self.job.share.gpus * self.job.share.processes)


@dataclass
class Scheduler:
    """Run trials to their end, as many at once as there is room for.

    They start in their order (but see ``orchestrator.scheduling.longest_first``).

    Attributes:
        ledger: Where everything is recorded before anything else hears of it.
        judge: Who decides on pruning.
        judged_metric: Name of the rung metric that the judge is told.
        executor: Where trials run. It is not closed here.
        view: Who shows what goes on.
        states: Where trials keep their states while they run.
        shares: What each trial gets to run on.
        limits: When a trial is given up.
        budget: What the run may cost; None = as much as it takes.
        lengths: How long trials take, as far as has been measured.
        catalogue: All trials of the sweep by id, from which orders name some.
        orders: Returns the orders given since the last call.
        weights: Folder that keeps the trained weights, in a folder for each trial; None = they are not kept.
        should_stop: Asked several times a second; a true answer ends the loop at once. What runs then is
            left as running in the ledger, for ``Ledger.release_running``.
        clock: Seconds, monotonic.
    """

    ledger: Record
    judge: Judge
    judged_metric: str
    executor: Executor
    view: View
    states: CheckpointStore
    shares: Allocator
    limits: Limits = field(default_factory=Limits)
    budget: Budget | None = None
    lengths: TrialDurations = field(default_factory=TrialDurations)
    trials_by_id: Mapping[str, Trial] = field(default_factory=dict)
    orders: Callable[[], Sequence[Command]] = tuple
    weights: Path | RemoteFolder | None = None
    should_stop: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic

    def run(self, trials: Sequence[Trial]) -> bool:
        """Run trials.

        Args:
            trials: What is to run; the ledger knows them already.

        Returns:
            Whether all came to an end, or were left out for the budget; False if the run was to stop before.
        """
        self._waiting = deque(trials)
        self._running: dict[str, _Running] = {}
        self._failures: Counter[tuple[str, bool]] = Counter()
        self._begun_seeds: set[int] = set()
        self._unwanted: set[str] = set()  # what runs and has been ordered to end for good
        self._idle_since_s: float | None = None
        self._urgency = LongestFirst(self.lengths, clock=self.clock)
        while self._waiting or self._running:
            if self.should_stop() or not self._obey(self.orders()):
                return False
            if self._is_budget_spent():
                return True
            self._fill()
            self._hear(self.executor.poll(POLL_S))
            self._end_stalled()
            self.view.tick()
        return True

    def _fill(self) -> None:
        """Hand out trials as long as there is room for the first that waits."""
        self._put_urgent_first()
        while self._waiting:
            trial = self._waiting[0]
            if trial.seed not in self._begun_seeds and (reason := self._no_room_for_seed(trial.seed)):
                self._leave_out([t for t in self._waiting if t.seed not in self._begun_seeds], reason)
                continue
            share = self.shares.of(trial)
            if not self.executor.has_room(share):
                self._warn_of_standstill(trial)
                return
            self._waiting.popleft()
            self._idle_since_s = None
            self._begun_seeds.add(trial.seed)
            job = Job(
                trial_id=trial.trial_id,
                attempt=self.ledger.begin_attempt(trial.trial_id, share),
                label=trial.label,
                config=self.shares.config_of(trial),
                state=self.states.file_of(trial.trial_id),
                weights=None if self.weights is None else self.weights / trial.trial_id,
                share=share,
            )
            self._running[trial.trial_id] = _Running(trial, job, self.clock())
            self.view.submitted(trial)
            self.executor.submit(job)

    def _warn_of_standstill(self, trial: Trial) -> None:
        """Say so, from time to time, if nothing runs and there is no room for the trial that comes next."""
        now_s = self.clock()
        if self._running or self._idle_since_s is None:
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s > STANDSTILL_S:
            self._idle_since_s = now_s
            _LOG.warning("nothing runs: there is no room for %s, which takes %s", trial.label, self.shares.of(trial))

    def _put_urgent_first(self) -> None:
        """Let trials that would hold up the end of the run start next, of seeds for which there is room."""
        if not self._waiting or not self._urgency.is_due:
            return
        is_bounded = self.budget is not None and self.budget.is_bounded
        eligible = [t for t in self._waiting if not is_bounded or t.seed in self._begun_seeds]
        others = [t for t in self._waiting if is_bounded and t.seed not in self._begun_seeds]
        now_s = self.clock()
        ordered = self._urgency.sorted(
            eligible,
            running=[(running.trial, now_s - running.begun_s) for running in self._running.values()],
            num_slots=lambda: max(1, self.executor.num_slots),
        )
        if ordered is not eligible:
            self._waiting = deque([*ordered, *others])

    def _hear(self, events: Sequence[Event]) -> None:
        """Record what has happened, then act on it."""
        for event in self.ledger.record_all(events):
            running = self._running[event.trial_id]
            running.hear(event, self.clock())
            if isinstance(event, Failed):
                self._failed(running, event)
                continue
            self.view.happened(event)
            if isinstance(event, Reported) and self._is_hopeless(event):
                self._end_for_good(event.trial_id)
            if isinstance(event, Finished):
                self.lengths.add(running.trial.group_id, running.trial.role, event.seconds, running.trial.arm_id)
            if type(event) in END_STATES:
                self._ended(running, event)

    def _failed(self, running: _Running, event: Failed) -> None:
        """Try a trial again, or give it up; one that was ordered to end is not begun anew."""
        is_unwanted = event.trial_id in self._unwanted
        why = "it was to be pruned" if is_unwanted else self._why_again(running, event)
        if not why:
            self.view.happened(event)
            self._ended(running, event)
            return
        self._gone(running, event)
        self._waiting.appendleft(running.trial)
        self.view.on_retry(event, why)
        if is_unwanted:
            self._prune(frozenset({event.trial_id}))

    def _why_again(self, running: _Running, event: Failed) -> str:
        """Return why a trial that failed is tried again, for people; empty if it is given up."""
        job = running.job
        if event.cause in _MEMORY:
            machine = self.executor.machine(job.share)
            more = self.shares.grow(
                running.trial, ran_with=job.share, ran_config=job.config, cause=event.cause, machine=machine
            )
            if more:
                return f"with {more}"
        is_node = event.cause is Cause.NODE
        key = event.trial_id, is_node
        self._failures[key] += 1
        allowed = MAX_NODE_LOSSES if is_node else self.limits.max_retries
        return f"retry {self._failures[key]} of {allowed}" if self._failures[key] <= allowed else ""

    def _ended(self, running: _Running, event: Event) -> None:
        self._gone(running, event)
        self.judge.end(event.trial_id, END_STATES[type(event)])

    def _gone(self, running: _Running, event: Event) -> None:
        """Take note that an attempt is over."""
        # Not before the ledger has it: if this process dies here, a result or a state is there.
        self.states.ended(event)
        del self._running[event.trial_id]
        if self.budget is not None:
            self.budget.spend(running.work_at(self.clock()))

    def _end_stalled(self) -> None:
        """Kill the attempts that no longer make progress."""
        now_s, limit_s = self.clock(), self.limits.stall_timeout_s
        silent = [r for r in self._running.values() if r.heard_s is not None and now_s - r.heard_s > limit_s]
        for running in silent:
            self.executor.kill(running.trial.trial_id)
            error = f"no progress for {limit_s:g} s at step {running.step}; it was killed"
            job = running.job
            self._hear([Failed(job.trial_id, job.attempt, error=error, traceback="", cause=Cause.STALLED)])

    def _is_hopeless(self, event: Reported) -> bool:
        value = event.metrics.get(self.judged_metric)
        return value is not None and self.judge.report(event.trial_id, event.step, value)

    def _obey(self, orders: Sequence[Command]) -> bool:
        """Do what was ordered; return whether the run goes on."""
        for order in orders:
            match order:
                case Cancel():
                    return False
                case Prune(trial_ids=trial_ids):
                    self._prune(frozenset(trial_ids))
                case Retry(trial_ids=trial_ids):
                    self._retry(trial_ids)
        return True

    def _prune(self, trial_ids: frozenset[str]) -> None:
        for trial_id in trial_ids & self._running.keys():
            self._end_for_good(trial_id)
        for trial in [trial for trial in self._waiting if trial.trial_id in trial_ids]:
            self._waiting.remove(trial)
            event = Pruned(trial.trial_id, self.ledger.begin_attempt(trial.trial_id), step=0, seconds=0.0)
            for recorded in self.ledger.record_all([event]):
                self.states.ended(recorded)
                self.view.submitted(trial)
                self.view.happened(recorded)
                self.judge.end(trial.trial_id, State.PRUNED)

    def _end_for_good(self, trial_id: str) -> None:
        self._unwanted.add(trial_id)
        self.executor.prune(trial_id)

    def _retry(self, trial_ids: Sequence[str]) -> None:
        here = {trial.trial_id for trial in self._waiting} | self._running.keys()
        for trial_id in dict.fromkeys(trial_ids):
            self._unwanted.discard(trial_id)
            self._failures[trial_id, False] = self._failures[trial_id, True] = 0
            if trial_id in self.trials_by_id and trial_id not in here and not self.ledger.is_done(trial_id):
                self.judge.exempt(trial_id)
                self._waiting.append(self.trials_by_id[trial_id])

    def _is_budget_spent(self) -> bool:
        if self.budget is None or not self.budget.is_bounded:
            return False
        now_s = self.clock()
        reason = self.budget.spent(running.work_at(now_s) for running in self._running.values())
        if not reason:
            return False
        # What runs is interrupted, with its state kept, when the executor is closed.
        self._leave_out([*self._waiting, *(running.trial for running in self._running.values())], reason)
        return True

    def _no_room_for_seed(self, seed: int) -> str:
        """Return which bound the trials of a seed would break; empty if none, or if that is not known yet."""
        # The first seed runs as far as it comes: without it there is no table at all.
        if self.budget is None or not self.budget.is_bounded or not self._begun_seeds:
            return ""
        now_s = self.clock()
        running = list(self._running.values())
        more = [self._work(trial) for trial in self._waiting if trial.seed == seed]
        left = [self._work(r.trial, done_s=r.work_at(now_s).seconds) for r in running]
        known = [work for work in [*more, *left] if work is not None]
        if len(known) < len(more) + len(left):
            return ""
        return self.budget.too_small_for(
            known[: len(more)],
            running=[r.work_at(now_s) for r in running],
            left=known[len(more) :],
            slots=max(1, self.executor.num_slots),
        )

    def _work(self, trial: Trial, *, done_s: float = 0.0) -> Work | None:
        seconds = self.lengths.of(trial.group_id, trial.role, trial.arm_id)
        share = self.shares.of(trial)
        return None if seconds is None else Work(max(0.0, seconds - done_s), share.gpus * share.processes)

    def _leave_out(self, trials: Sequence[Trial], reason: str) -> None:
        gone = {trial.trial_id for trial in trials}
        self._waiting = deque(trial for trial in self._waiting if trial.trial_id not in gone)
        self.ledger.leave_out(gone, reason)
        self.view.left_out(trials, reason)
