"""A sweep that was read and checked: its file, and the groups that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from orchestrator.sweep.declared.growing_seeds import GrowingSeeds
from orchestrator.sweep.naming import results_name
from orchestrator.sweep.pruning_settings import NoPruning
from orchestrator.sweep.schema import SweepFile
from specvit.config import ModelSettings
from specvit.data import AnyDataSource
from specvit.probes import PROBES
from specvit.recipes import AnyRecipe
from specvit.settings import settings


@settings
class Group:
    """What the arms of one group share.

    Attributes:
        varied: The varied fields and their values in this group, in the order of the file.
        model: The backbone.
        data: The images.
        objective: The recipe.
    """

    varied: tuple[tuple[str, Any], ...]
    model: ModelSettings
    data: AnyDataSource
    objective: AnyRecipe


@dataclass(frozen=True)
class Limits:
    """What a sweep may cost, and when a trial is given up: those fields of the file that go by the same names."""

    max_retries: int = 2
    stall_timeout_s: float = 1800.0
    start_timeout_s: float = 1800.0
    time_budget_h: float | None = None
    max_gpu_hours: float | None = None


@settings
class Sweep:
    """A sweep that was read and checked.

    Attributes:
        file: What the file and the overrides say. The probes of the rungs are named, each floor stands once; model,
            data and objective are those of the first group.
        groups: What varies, resolved: one entry per group, in the order of the file.
        path: The file it was read from.
        text: What the file says, with what it extends and the overrides that change results.
        overrides: What was set on the command line, ``path=value``, in order.
        external_parameters: Parameters of each external backbone, once they were looked at (``sweep.pretrained``).
    """

    file: SweepFile
    groups: tuple[Group, ...]
    path: Path
    text: str
    overrides: tuple[str, ...]
    external_parameters: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the folder of its results, see ``orchestrator.sweep.naming``."""
        return results_name(self.path, self.file.name, self.overrides)

    @property
    def parts(self) -> tuple[object, ...]:
        """Return the data sources, recipes, comparators and probes that it uses."""
        probes = self.file.probes
        sources = [probe.data for probe in probes if probe.data is not None]
        of_groups = [part for group in self.groups for part in (group.data, group.objective)]
        return (*of_groups, *probes, *sources, *(self.file.ablate.comparators or ()))

    @property
    def growth(self) -> GrowingSeeds | None:
        """Return how its seeds grow, defaults written out; None if they are fixed."""
        seeds = self.file.seeds
        prunes = not isinstance(self.file.pruning, NoPruning)
        return seeds.resolved(prunes=prunes) if isinstance(seeds, GrowingSeeds) else None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return all seeds that an arm has, or may have."""
        return self.file.seeds.seeds if isinstance(self.file.seeds, GrowingSeeds) else self.file.seeds

    @property
    def baseline_seeds(self) -> tuple[int, ...]:
        """Return the seeds of the baseline, which are all that there are: the arms', then those that it has alone."""
        more = (self.file.baseline_seeds or 0) - len(self.seeds)
        first = max(self.seeds) + 1
        return (*self.seeds, *range(first, first + max(0, more)))

    @property
    def limits(self) -> Limits:
        """Return the limits that the file sets."""
        return Limits(**{field.name: getattr(self.file, field.name) for field in fields(Limits)})

    @property
    def pruning_metric(self) -> str:
        """Return the rung metric that pruning judges by: the named one, or the first rung probe's first."""
        return self.file.pruning.metric or PROBES[self.file.rungs.probes[0]].metrics[0].name
