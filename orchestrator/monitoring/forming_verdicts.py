"""What a sweep says before it has ended: after each seed that is complete, the group's table or its sentence.

After one seed there are numbers and no verdict; from four on there are verdicts, so far: the claims are those of the
table at the end. Nothing is computed but when a seed of a group becomes complete, at most every few seconds, and never
for more than a small share of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable, build_tables
from orchestrator.reports.comparisons import Claims
from orchestrator.reports.rendering.formatting import describe, format_size
from orchestrator.reports.rendering.verdict_marks import verdict_of
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.statistics import LEAST_SEEDS, Comparison, Design, Verdict
from orchestrator.trials.events import Event, Failed, Finished, Pruned
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role, Trial, TrialInfo

INTERVAL_S = 5.0
"""Least time between two computations."""

MOST_SHARE = 0.05
"""Share of the time that they take at most."""
EARLY_S = 60.0
"""Seconds after which there is a first table, of what is there of a first seed, if none is complete until then."""

_OPEN = (State.WAITING, State.PENDING, State.RUNNING)


@dataclass(frozen=True)
class Standing:
    """What a group says so far.

    Attributes:
        group: Text of the group; empty if the sweep has one.
        num_complete: Seeds of which every trained trial has ended.
        num_seeds: Seeds planned; where they grow, the most.
        sentences: What is said of them.
        verdicts: Those on its arms in the primary metric, from four seeds on.
        table: After the first seed, or a minute of it, the table of it alone; else None.
    """

    group: str
    num_complete: int
    num_seeds: int
    sentences: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()
    table: AblationTable | None = None


class FormingVerdicts(SweepCallback):
    """What the groups of a running sweep say so far.

    Attributes:
        standings: Group id to what it says since its last complete seed.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[TrialRecord]],
        info: SweepInfo,
        *,
        detectable: Callable[[str], float | None] = lambda _group: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Record what is complete already: it is not told again.

        Args:
            read: Returns all trials of the sweep, as things are now.
            info: The sweep.
            detectable: Returns by a group's text which difference of the primary metric could be found with the seeds
                planned, from noise that was measured before; None if it is not known. Asked when a first seed is
                complete.
            clock: Seconds, monotonic.
        """
        self._read = read
        self._info = info
        self._detectable = detectable
        self._clock = clock
        self._claims = Claims.of(info)
        self._places: dict[str, tuple[str, int]] = {}
        self._left: dict[tuple[str, int], set[str]] = {}
        self._due: dict[str, None] = {}
        self._next_s = clock()
        self._early_s: float | None = clock() + EARLY_S
        self.standings: dict[str, Standing] = {}
        records = read()
        for record in records:
            trial = record.trial
            if trial.role.is_trained:
                self._places[trial.trial_id] = (trial.group_id, trial.seed)
                left = self._left.setdefault((trial.group_id, trial.seed), set())
                if record.state in _OPEN or record.state is State.FAILED:  # which is tried again
                    left.add(trial.trial_id)
        self._drop(record.trial for record in records if record.state is State.SKIPPED)
        self._drop_extra(records)
        self._told = {group_id: len(self._complete(group_id)) for group_id, _ in self._places.values()}

    def on_event(self, event: Event) -> None:
        """Record that a trial has ended."""
        if isinstance(event, Finished | Pruned | Failed):
            self._ended(event.trial_id)

    def on_skip(self, trials: Sequence[Trial], reason: str) -> None:  # noqa: ARG002
        """Record that trials do not run."""
        self._drop(trials)
        for trial in trials:
            self._ended(trial.trial_id)

    def news(self) -> list[Standing]:
        """Return what groups say of which a seed has become complete; empty if there is nothing new, or it is early.

        Once, after a minute without one, what is there of a first seed.
        """
        now = self._clock()
        if now < self._next_s or not (self._due or (self._early_s is not None and now >= self._early_s)):
            return []
        found = self._complete_seeds() if self._due else self._early()
        if found:
            self._early_s = None
        took = self._clock() - now
        self._next_s = now + max(INTERVAL_S, took / MOST_SHARE)
        return found

    def _complete_seeds(self) -> list[Standing]:
        """Return what groups say of which a seed has become complete."""
        due, self._due = self._due, {}
        by_group: dict[str, list[TrialRecord]] = {group_id: [] for group_id in due}
        for record in self._read():
            if record.trial.group_id in by_group:
                by_group[record.trial.group_id].append(record)
        found = []
        for group_id, records in by_group.items():
            complete = self._complete(group_id)
            if len(complete) > self._told[group_id]:
                self._told[group_id] = len(complete)
                self.standings[group_id] = self._standing(records, complete)
                found.append(self.standings[group_id])
        return found

    def _early(self) -> list[Standing]:
        """Return what is there of a first seed, of the first group that has its baseline and an arm; empty without."""
        if any(self._told.values()):
            self._early_s = None
            return []
        by_place: dict[tuple[str, int], list[TrialRecord]] = {}
        for record in self._read():
            by_place.setdefault((record.trial.group_id, record.trial.seed), []).append(record)
        for records in by_place.values():
            done = [record for record in records if record.state is State.DONE]
            num_arms = sum(record.trial.role is Role.ARM for record in records)
            num_done = sum(record.trial.role is Role.ARM for record in done)
            if num_done and any(record.trial.role is Role.BASELINE for record in done):
                trial = records[0].trial
                so_far = f"{num_done} of {num_arms} arms of the first seed (seed {trial.seed}) so far"
                text = f"{so_far}: no verdict by one seed."
                return [Standing(trial.group, 0, 0, (text,), table=self._table(done, is_one_seed=True))]
        return []

    def _ended(self, trial_id: str) -> None:
        place = self._places.get(trial_id)
        if place is None or trial_id not in self._left.get(place, ()):
            return
        self._left[place].remove(trial_id)
        if not self._left[place]:
            self._due[place[0]] = None

    def _drop(self, trials: Iterable[TrialInfo]) -> None:
        """Record that seeds never become complete whose baseline does not run."""
        for trial in trials:
            if trial.role is Role.BASELINE:
                self._left.pop((trial.group_id, trial.seed), None)

    def _drop_extra(self, records: Iterable[TrialRecord]) -> None:
        """Record that seeds count for nothing here that only the baseline has, in groups that have arms."""
        arms = {(record.trial.group_id, record.trial.seed) for record in records if record.trial.role is Role.ARM}
        groups = {group_id for group_id, _ in arms}
        for place in [place for place in self._left if place[0] in groups and place not in arms]:
            del self._left[place]

    def _complete(self, group_id: str) -> list[int]:
        return sorted(seed for (group, seed), left in self._left.items() if group == group_id and not left)

    def _standing(self, records: Sequence[TrialRecord], complete: Sequence[int]) -> Standing:
        group = records[0].trial.group
        of_arms = {record.trial.seed for record in records if record.trial.role is Role.ARM}
        of_baseline = {record.trial.seed for record in records if record.trial.role is Role.BASELINE}
        num_seeds = len(of_arms or of_baseline)
        if len(complete) == 1:
            table = self._table(_of_seeds(records, complete), is_one_seed=True)
            sentence = self._first_sentence(table, num_seeds, group=group, seed=complete[0])
            return Standing(group, 1, num_seeds, (sentence,), table=table)
        table = self._table(_of_seeds(records, complete) if self._claims.growth is None else records)
        said = tuple(_sentences(table, len(complete), num_seeds, num_baseline=len(of_baseline)))
        shown = (verdict_of(row, table.primary) for row in table.rows if row.role is Role.ARM)
        verdicts = tuple(verdict for verdict in shown if verdict is not None) if len(complete) >= LEAST_SEEDS else ()
        return Standing(group, len(complete), num_seeds, said, verdicts)

    def _table(self, records: Sequence[TrialRecord], *, is_one_seed: bool = False) -> AblationTable:
        claims = replace(self._claims, growth=None) if is_one_seed else self._claims
        (table,) = build_tables(records, self._info.metrics, claims).values()
        return table

    def _first_sentence(self, table: AblationTable, num_seeds: int, *, group: str, seed: int) -> str:
        title, planned = describe(table.primary).title, _planned(num_seeds)
        text = f"first seed complete (seed {seed}), one of {num_seeds}: no verdict"
        if not any(row.role is Role.ARM for row in table.rows):
            return f"{text}: there is no arm to compare."
        if num_seeds < LEAST_SEEDS:
            return f"{text}, nor with {planned}: it takes {LEAST_SEEDS}."
        unseen = self._detectable(group)
        if unseen is None:
            return f"{text}; what {planned} can show of {title} is known from the second seed on."
        return f"{text}; {_unseen(table, unseen, planned)}."


def _sentences(table: AblationTable, num_complete: int, num_seeds: int, *, num_baseline: int) -> Iterator[str]:
    """Yield what a group says after its second seed, or a later one."""
    all_of = "all " if num_complete == num_seeds else f"{num_complete} of "
    start = f"{all_of}{num_seeds} seeds complete"
    comparison = table.comparisons.get(table.primary)
    if comparison is None:
        yield f"{start}."
    elif num_complete < LEAST_SEEDS or (table.growth is not None and not table.growth.look):
        first = LEAST_SEEDS if table.growth is None else table.growth.next_look
        unseen = _detectable_with(num_seeds, num_baseline, table, comparison) if num_seeds >= LEAST_SEEDS else None
        more = "" if unseen is None else f"; {_unseen(table, unseen, _planned(num_seeds))}"
        yield f"{start}: no verdict before {first}{more}."
    else:
        so_far = "" if num_complete == num_seeds else ", so far"
        for sentence in sentences_of(table):
            yield f"{start}{so_far}: {sentence}"


def _detectable_with(
    num_seeds: int, num_baseline: int, table: AblationTable, comparison: Comparison
) -> float | None:
    """Return the difference that is found with 80% probability with some seeds, by the noise so far."""
    num_arms = len(comparison.family.contrasts)
    if not num_arms or not comparison.sd:
        return None
    blocks = table.declared.model == "blocked"
    base = None if blocks else max(2, num_baseline)
    return Design(num_arms, num_seeds, comparison.sd, blocks=blocks, num_baseline_seeds=base).detectable()


def _unseen(table: AblationTable, unseen: float, planned: str) -> str:
    title, size = describe(table.primary).title, format_size(table.primary, unseen)
    return f"differences of {title} under {size} could not be seen with {planned}"


def _planned(num_seeds: int) -> str:
    return f"the {num_seeds} seed{'s' * (num_seeds != 1)} planned"


def _of_seeds(records: Iterable[TrialRecord], seeds: Sequence[int]) -> list[TrialRecord]:
    return [record for record in records if record.trial.seed in seeds]
