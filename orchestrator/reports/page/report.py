"""What a report is made of: all that a ledger says of a sweep, at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import AblationTable, tables_of
from orchestrator.reports.interactions import Interactions, compare_groups
from orchestrator.trials.records import State, TrialRecord, TrialUsage

MOST_GROUPS_IN_FULL = 12
"""Groups that are shown with all their figures; of more, each is folded and has the primary metric's alone."""


@dataclass(frozen=True, eq=False)
class SweepReport:
    """All that a page shows.

    Attributes:
        info: The sweep.
        records: All its trials, in its order.
        environment: Of the run that computed the newest ones, as JSON values (``environment_of``); empty if none has.
        usage: Trial id to what all attempts at it took; those that none is known of are absent.
        seen_at: When a page was made that goes on being made anew, human-readable; empty of one that is kept.
        refresh_s: After how many seconds such a page asks for the next one.
    """

    info: SweepInfo
    records: Sequence[TrialRecord]
    environment: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, TrialUsage] = field(default_factory=dict)
    seen_at: str = ""
    refresh_s: int | None = None

    @cached_property
    def tables(self) -> dict[str, AblationTable]:
        """Return the table of every group."""
        return tables_of(self.records, self.info)

    @cached_property
    def across(self) -> Interactions | None:
        """Return what is found across groups; None where there is nothing to be found."""
        return compare_groups(self.tables)

    @cached_property
    def by_group(self) -> dict[str, list[TrialRecord]]:
        """Return the trials of every group, in the order of the tables."""
        groups: dict[str, list[TrialRecord]] = {}
        for record in self.records:
            groups.setdefault(record.trial.group, []).append(record)
        return groups

    @cached_property
    def counts(self) -> Counter[State]:
        """Return how many trials are in each state."""
        return Counter(record.state for record in self.records)

    @property
    def num_unfinished(self) -> int:
        """Return how many trials wait or run."""
        return sum(self.counts[state] for state in (State.WAITING, State.PENDING, State.RUNNING))

    @property
    def shows_all(self) -> bool:
        """Return whether there are so few groups that each is shown in full."""
        return len(self.tables) <= MOST_GROUPS_IN_FULL
