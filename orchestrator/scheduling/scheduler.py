"""The one stateful loop: it hands out trials, records and judges what they report, and answers what goes wrong."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from orchestrator.execution.executor import Executor
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.breaker import Breaker
from orchestrator.scheduling.budget import Budget, Work
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.jobs import JobMaker
from orchestrator.scheduling.longest_first import LongestFirst
from orchestrator.scheduling.protocols import Judge, Record, SweepCallback
from orchestrator.scheduling.retries import Decision, RetryPolicy
from orchestrator.scheduling.running import RunningAttempt
from orchestrator.scheduling.standstill import Standstill
from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.storage.command_inbox import Cancel, Command, Prune, Retry
from orchestrator.storage.remote_folder import Location
from orchestrator.sweep.resolved import Limits
from orchestrator.trials.events import END_STATES, Event, Failed, Finished, Pruned, Reported
from orchestrator.trials.records import WHY_NOT_AGAIN, Cause, State
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.stored import KeptTraining
from orchestrator.trials.trial import Trial

POLL_S = 0.25

_LOG = logging.getLogger(__name__)


class Scheduler:
    """The loop that runs trials to their end, as many at once as there is room for.

    They start in their order (but see ``orchestrator.scheduling.longest_first``).
    """

    def __init__(
        self,
        *,
        ledger: Record,
        executor: Executor,
        allocator: Allocator,
        judge: Judge,
        judged_metric: str = "",
        callbacks: Sequence[SweepCallback] = (),
        states: CheckpointStore | None = None,
        weights: Location | None = None,
        keeps_weights: Callable[[Trial], bool] = lambda _: True,
        kept: Mapping[str, KeptTraining] | None = None,
        limits: Limits | None = None,
        budget: Budget | None = None,
        durations: TrialDurations | None = None,
        trials_by_id: Mapping[str, Trial] | None = None,
        commands: Callable[[], Sequence[Command]] = tuple,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        warn: Callable[[str], object] = _LOG.warning,
    ) -> None:
        """Take what the loop works with.

        Args:
            ledger: Where everything is recorded before a callback is called.
            executor: Where trials run. It is not closed here.
            allocator: What each trial gets to run on.
            judge: What decides on pruning.
            judged_metric: Name of the rung metric that the judge gets.
            callbacks: Observers, called in their order.
            states: Where trials keep their states while they run; None = nowhere.
            weights: Folder of trained weights, which has a folder for each trial; None = they are not kept.
            keeps_weights: Returns whether a trial's are kept there.
            kept: What is known of trials before they run, by their ids.
            limits: When a trial is given up.
            budget: What the run may cost; None = what ``limits`` say.
            durations: How long trials take, as far as has been measured.
            trials_by_id: All trials of the sweep, from which commands name some.
            commands: Returns the commands given since the last call.
            should_stop: Asked several times a second; a true answer ends the loop at once. What runs then is
                left as running in the ledger, for ``Ledger.release_running``.
            clock: Seconds, monotonic.
            warn: Called with warnings of what keeps trials from running.
        """
        self._ledger, self._executor, self._states = ledger, executor, states
        self._jobs = JobMaker(allocator, states=states, weights=weights, keeps_weights=keeps_weights, kept=kept)
        self._judge, self._judged_metric = judge, judged_metric
        self._callbacks = callbacks
        self._limits = limits or Limits()
        self._budget = budget or Budget(self._limits, clock=clock)
        self._durations = durations or TrialDurations()
        self._trials_by_id = trials_by_id or {}
        self._commands, self._should_stop, self._clock = commands, should_stop, clock
        self._retries = RetryPolicy(allocator, self._limits, clock=clock, warn=warn)
        self._breaker = Breaker(clock)
        self._order = LongestFirst(self._durations, clock=clock)
        self._waiting: deque[Trial] = deque()
        self._running: dict[str, RunningAttempt] = {}
        self._started_seeds: set[int] = set()
        self._stopping: dict[str, str] = {}  # running trials that a command or the judge ends, and why
        self._standstill = Standstill(clock, warn=warn, held_by_others=executor.held_by_others)
        self._blocked: Trial | None = None  # the first that waits, if there is no room for it

    def run(self, trials: Sequence[Trial]) -> bool:
        """Run trials.

        Args:
            trials: What is to run; the ledger knows them already.

        Returns:
            Whether all came to an end, or were skipped for the budget; False if the run was to stop before.

        Raises:
            EverythingFailsError: If one attempt after the other failed.
        """
        self._waiting.extend(trials)
        while self._waiting or self._running:
            if self._should_stop() or not self._apply_commands(self._commands()):
                return False
            if self._is_budget_spent():
                return True
            self._submit_waiting()
            self._on_events(self._executor.poll(POLL_S))
            self._kill_stalled()
            self._standstill.check(
                self._running.values(), blocked=self._blocked, share_of=self._jobs.request_for
            )
            started = (r.submitted_s for r in self._running.values() if r.started_s is not None)
            self._breaker.check(oldest_s=min(started, default=math.inf))
            for callback in self._callbacks:
                callback.on_tick()
        return True

    def next_s(self) -> float:
        """Return when the loop has something to do, by its clock, although no event comes; infinite if never."""
        return self._retries.next_s()

    def _submit_waiting(self) -> None:
        """Hand out trials as long as there is room for the first that waits."""
        self._put_urgent_first()
        while (found := self._next()) is not None:
            trial, avoid = found
            self._waiting.remove(trial)
            self._started_seeds.add(trial.seed)
            kept = self._jobs.kept_of(trial.trial_id)
            attempt = self._ledger.begin_attempt(
                trial.trial_id, self._jobs.request_for(trial), trained_by=None if kept is None else kept.source
            )
            job = self._jobs.make(trial, attempt, avoid=avoid)
            running = self._running[trial.trial_id] = RunningAttempt(trial, job, self._clock())
            for callback in self._callbacks:
                callback.on_submit(trial)
            running.place = self._executor.submit(job)
            running.started_s = running.submitted_s if running.place.has_started else None

    def _next(self) -> tuple[Trial, frozenset[str]] | None:
        """Return the trial that comes next and where it is not to run; None if there is no room for it now."""
        closed, self._blocked = self._retries.closed(), None
        for trial in self._waiting:
            if not self._retries.is_ready(trial.trial_id):
                continue
            if trial.seed not in self._started_seeds and (reason := self._no_room_for_seed(trial.seed)):
                self._skip([t for t in self._waiting if t.seed == trial.seed], reason)
                return self._next()
            share, avoid = self._jobs.request_for(trial), closed | self._retries.failed_on(trial.trial_id)
            if avoid != closed and not self._executor.fits(share, avoid):
                avoid = closed
            if self._executor.has_room(share, avoid):
                return trial, avoid
            if avoid == closed:
                self._blocked = trial
                return None
            # It waits for another node than the one on which it failed; those behind it need not.
        return None

    def _put_urgent_first(self) -> None:
        """Move trials forward that would hold up the end of the run, of seeds for which there is room."""
        if not self._waiting or not self._order.is_due:
            return
        is_bounded = self._budget.is_bounded
        eligible = [t for t in self._waiting if not is_bounded or t.seed in self._started_seeds]
        others = [t for t in self._waiting if is_bounded and t.seed not in self._started_seeds]
        now_s = self._clock()
        ordered = self._order.sorted(
            eligible,
            running=[(running.trial, running.elapsed_s(now_s)) for running in self._running.values()],
            share_of=self._jobs.request_for,
            least_s=self._executor.least_s,
        )
        if ordered is not eligible:
            self._waiting = deque([*ordered, *others])

    def _on_events(self, events: Sequence[Event]) -> None:
        """Record events, then act on them."""
        for event in self._ledger.record_all(events):
            running = self._running[event.trial_id]
            running.on_event(event, self._clock())
            if isinstance(event, Failed):
                self._on_failure(running, event)
                continue
            for callback in self._callbacks:
                callback.on_event(event)
            if isinstance(event, Reported):
                for trial_id in self._hopeless(event):
                    self._stop(trial_id, self._judge.why(trial_id))
            if isinstance(event, Finished):
                trial = running.trial
                self._durations.add(trial.group_id, trial.role, event.seconds, trial.arm_id)
            if type(event) in END_STATES:
                self._end(running, event)

    def _on_failure(self, running: RunningAttempt, event: Failed) -> None:
        """Try a trial again, or give it up; one that was to be stopped does not start over."""
        is_stopping = event.trial_id in self._stopping
        decision = Decision(True, "it was to be pruned")
        if not is_stopping:
            decision = self._retries.decide(
                running.trial, running.job, event, place=running.place, machine_for=self._executor.machine
            )
            if event.cause not in (Cause.NODE, *WHY_NOT_AGAIN):
                self._breaker.add_failure(event, is_given_up=not decision.again)
        if not decision.again:
            for callback in self._callbacks:
                callback.on_give_up(event, decision.why)
            self._end(running, event)
            return
        self._release(running, event)
        self._waiting.appendleft(running.trial)
        for callback in self._callbacks:
            callback.on_retry(event, decision.why)
        if is_stopping:
            self._prune(frozenset({event.trial_id}), self._stopping[event.trial_id])

    def _end(self, running: RunningAttempt, event: Event) -> None:
        if not isinstance(event, Failed):
            self._retries.succeeded(running.place)
            self._breaker.add_success()
        self._release(running, event)
        self._judge.end(event.trial_id, END_STATES[type(event)])

    def _release(self, running: RunningAttempt, event: Event) -> None:
        """Release the place of an attempt that is over."""
        # Not before the ledger has it: if this process dies here, a result or a state is there.
        if self._states is not None:
            self._states.ended(event)
        del self._running[event.trial_id]
        self._budget.spend(running.work_at(self._clock()))

    def _kill_stalled(self) -> None:
        """Kill the attempts that no longer make progress, or were pending for too long, which is not their fault."""
        now_s, limits = self._clock(), self._limits
        for running in list(self._running.values()):
            job, error, cause = running.job, "", Cause.STALLED
            if running.started_s is None and now_s - running.submitted_s > limits.start_timeout_s:
                error = f"no worker has started within {limits.start_timeout_s:g} s; others may hold what it takes"
                cause = Cause.NODE
            elif running.last_event_s is not None and now_s - running.last_event_s > limits.stall_timeout_s:
                error = f"no progress for {limits.stall_timeout_s:g} s at step {running.step}; it was killed"
            if error:
                self._executor.kill(job.trial_id)
                self._on_events([Failed(job.trial_id, job.attempt, error=error, traceback="", cause=cause)])

    def _hopeless(self, event: Reported) -> list[str]:
        value = event.metrics.get(self._judged_metric)
        found = () if value is None else self._judge.report(event.trial_id, event.step, value)
        return [trial_id for trial_id in found if trial_id in self._running]

    def _apply_commands(self, commands: Sequence[Command]) -> bool:
        """Apply commands; return whether the run goes on."""
        for command in commands:
            match command:
                case Cancel():
                    return False
                case Prune(trial_ids=trial_ids):
                    self._prune(frozenset(trial_ids))
                case Retry(trial_ids=trial_ids):
                    self._retry(trial_ids)
        return True

    def _prune(self, trial_ids: frozenset[str], why: str = "by hand") -> None:
        for trial_id in trial_ids & self._running.keys():
            self._stop(trial_id, why)
        for trial in [trial for trial in self._waiting if trial.trial_id in trial_ids]:
            self._waiting.remove(trial)
            event = Pruned(trial.trial_id, self._ledger.begin_attempt(trial.trial_id), step=0, seconds=0.0, why=why)
            for recorded in self._ledger.record_all([event]):
                if self._states is not None:
                    self._states.ended(recorded)
                for callback in self._callbacks:
                    callback.on_submit(trial)
                    callback.on_event(recorded)
                self._judge.end(trial.trial_id, State.PRUNED)

    def _stop(self, trial_id: str, why: str) -> None:
        """Have a running trial end as pruned; if it fails instead, it is not tried again."""
        self._stopping[trial_id] = why
        self._executor.prune(trial_id, why)

    def _retry(self, trial_ids: Sequence[str]) -> None:
        here = {trial.trial_id for trial in self._waiting} | self._running.keys()
        for trial_id in dict.fromkeys(trial_ids):
            self._stopping.pop(trial_id, None)
            self._retries.forget(trial_id)
            if trial_id in self._trials_by_id and trial_id not in here and not self._ledger.is_done(trial_id):
                self._judge.exempt(trial_id)
                self._waiting.append(self._trials_by_id[trial_id])

    def _is_budget_spent(self) -> bool:
        if not self._budget.is_bounded:
            return False
        now_s = self._clock()
        reason = self._budget.spent(running.work_at(now_s) for running in self._running.values())
        if not reason:
            return False
        # What runs is interrupted, with its state kept, when the executor is closed.
        self._skip([*self._waiting, *(running.trial for running in self._running.values())], reason)
        return True

    def _no_room_for_seed(self, seed: int) -> str:
        """Return which bound the trials of a seed would break; empty if none, or if that is not known yet."""
        # The first seed runs as far as it comes: without it there is no table at all.
        if not self._budget.is_bounded or not self._started_seeds:
            return ""
        now_s = self._clock()
        attempts = list(self._running.values())
        waiting = [trial for trial in self._waiting if trial.seed == seed or trial.seed in self._started_seeds]
        to_do = [(trial, self._jobs.request_for(trial), 0.0) for trial in waiting]
        to_do += [(attempt.trial, attempt.job.share, attempt.elapsed_s(now_s)) for attempt in attempts]
        work: list[Work] = []
        by_share: defaultdict[ResourceRequest, float] = defaultdict(float)
        for trial, share, done_s in to_do:
            seconds = self._durations.estimate(trial.group_id, trial.role, trial.arm_id)
            if seconds is None:
                return ""
            left_s = max(0.0, seconds - done_s)
            work.append(Work(left_s, share.total_gpus))
            by_share[share] += left_s
        running = [attempt.work_at(now_s) for attempt in attempts]
        return self._budget.too_small_for(work, running=running, least_s=self._executor.least_s(by_share))

    def _skip(self, trials: Sequence[Trial], reason: str) -> None:
        gone = {trial.trial_id for trial in trials}
        self._waiting = deque(trial for trial in self._waiting if trial.trial_id not in gone)
        self._ledger.skip(gone, reason)
        for callback in self._callbacks:
            callback.on_skip(trials, reason)
