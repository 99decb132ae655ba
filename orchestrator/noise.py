"""The noise of a sweep's metrics as it was measured: in its own ledger, or in another under the same results folder.

Of published studies there, which have no ledger, the trials beside their tables serve likewise.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.reports.per_trial.sweep_data import SWEEP_COPY_NAME, SweepData
from orchestrator.reports.per_trial.trials_csv import CSV_NAME
from orchestrator.storage.remote_folder import is_url
from orchestrator.storage.views import STUDIES, folder_names, sweep_view
from orchestrator.sweep.declared.comparison import ComparisonSettings
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.records import TrialRecord
from orchestrator.trials.trial import Role, Trial
from specvit.errors import SpecsweepError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Noise:
    """The noise of a metric, as in ``MetricPower``, and of how many of the sweep's arms it was measured."""

    sd: float
    df: int | None
    source: str
    num_arms: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        """Return how well it tells the noise of a sweep: arms vary unlike each other, so its own arms come first."""
        return self.num_arms, self.df or 0


@dataclass(frozen=True)
class OtherSweep:
    """A sweep under the same results folder.

    Attributes:
        name: Of its folder.
        by_group: The records of its trials, by id of the group.
        configs: Of each of these groups the configuration of a trial, as it is stored.
    """

    name: str
    by_group: Mapping[str, Sequence[TrialRecord]]
    configs: Mapping[str, Mapping[str, Any]]


class OtherSweeps:
    """The other sweeps under a results folder, which are read once, and only if they are asked for."""

    def __init__(self, results_root: str | Path, name: str) -> None:
        """Take the folder and the name of the sweep that is not asked for."""
        self._results_root = results_root
        self._name = name

    @cached_property
    def found(self) -> tuple[OtherSweep, ...]:
        """Return those that can be read, by name; of each other one a warning tells."""
        return tuple(self._read())

    def _read(self) -> Iterator[OtherSweep]:
        for name in folder_names(self._results_root):
            try:
                view = None if name == self._name else sweep_view(self._results_root, name)
                if view is not None:
                    yield OtherSweep(name, *_read(view))
            except (SpecsweepError, OSError) as error:
                _LOG.warning("%s: times and noise of its trials are not used, for it cannot be read: %s", name, error)
        if not is_url(str(self._results_root)):
            yield from _read_studies(Path(self._results_root) / STUDIES)


def _read_studies(folder: Path) -> Iterator[OtherSweep]:
    """Yield the published studies in a folder."""
    for table in sorted(folder.glob(f"*/{CSV_NAME}")):
        name = f"{STUDIES}/{table.parent.name}"
        try:
            by_group: defaultdict[str, list[TrialRecord]] = defaultdict(list)
            for record in SweepData.of_folder(table.parent).records:
                by_group[record.trial.group_id].append(record)
            yield OtherSweep(name, by_group, _configs(table.parent / SWEEP_COPY_NAME))
        except (SpecsweepError, OSError) as error:
            _LOG.warning("%s: times and noise of its trials are not used, for it cannot be read: %s", name, error)


def _configs(file: Path) -> dict[str, Mapping[str, Any]]:
    """Return of each group of a study's file the configuration of a trial; none if the file cannot be read."""
    try:
        trials = expand(load_sweep(file))
    except (SpecsweepError, OSError):
        return {}
    return {group: json.loads(to_json(config)) for group, config in {t.group_id: t.config for t in trials}.items()}


def find_noise(
    groups: Mapping[str, Sequence[Trial]],
    own: Path | None,
    others: OtherSweeps,
    metrics: Sequence[str],
    comparison: ComparisonSettings,
) -> tuple[dict[str, dict[str, Noise]], list[TrialRecord]]:
    """Return the noise that was measured, by group and metric, and the records that tell how long trials take."""
    noise: dict[str, dict[str, Noise]] = {group: {} for group in groups}
    timed: list[TrialRecord] = []
    if own is not None:
        mine = _read(own)[0]
        timed = [record for of_group in mine.values() for record in of_group]
        noise |= {
            group: _measure(mine.get(group, ()), groups[group], metrics, "this sweep", comparison) for group in groups
        }
    unknown = [group for group in groups if not noise[group]]
    alike: dict[str, dict[str, Noise]] = defaultdict(dict)
    timed_alike: list[TrialRecord] = []
    wanted = {group: json.loads(to_json(groups[group][0].config)) for group in unknown}
    for sweep in others.found if unknown else ():
        by_group = sweep.by_group
        for group in unknown:
            if group in by_group:
                timed += by_group[group]
                what = f"sweep {sweep.name}, the same group"
                _add(noise[group], _measure(by_group[group], groups[group], metrics, what, comparison))
            for other, config in sweep.configs.items():
                if other != group and _is_alike(wanted[group], config, groups[group][0].config.data.path_fields):
                    timed_alike += by_group[other]
                    what = f"sweep {sweep.name}, the same recipe, scale and data"
                    _add(alike[group], _measure(by_group[other], groups[group], metrics, what, comparison))
    for group in unknown:
        noise[group] = noise[group] or alike[group]
    return noise, timed or timed_alike


def _add(known: dict[str, Noise], found: Mapping[str, Noise]) -> None:
    """Keep of each metric the noise of the highest rank, of equals the first."""
    for name, each in found.items():
        if name not in known or each.rank > known[name].rank:
            known[name] = each


def _read(view: Path) -> tuple[dict[str, list[TrialRecord]], dict[str, Mapping[str, Any]]]:
    """Return the records of a ledger by group, and of each such group the configuration of a trial, as it is stored."""
    by_group: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    with Ledger.read(view / LEDGER_NAME) as ledger:
        for record in ledger.records(with_reports=False):
            by_group[record.trial.group_id].append(record)
        configs = ledger.group_configs()
    return dict(by_group), {group: config for group, config in configs.items() if group in by_group}


def _measure(
    records: Iterable[TrialRecord],
    trials: Iterable[Trial],
    metrics: Sequence[str],
    source: str,
    comparison: ComparisonSettings,
) -> dict[str, Noise]:
    """Return the noise of a group's records, by metric; nothing without two seeds of the baseline and an arm.

    Args:
        records: Of a group.
        trials: Of the group whose noise is wanted.
        metrics: Those that are wanted.
        source: What to call it.
        comparison: How the sweep that asks compares.
    """
    by_arm: dict[str, list[TrialRecord]] = {}
    for record in records:
        by_arm.setdefault(record.trial.arm_id, []).append(record)
    if not any(record.metrics for of_arm in by_arm.values() for record in of_arm):
        return {}
    from orchestrator.reports.comparisons import Claims, compare_group

    # By name: in another group the same arm has another id.
    wanted = {trial.arm for trial in trials if trial.role is Role.ARM}
    num_arms = len(wanted & {of_arm[0].trial.arm for of_arm in by_arm.values()})
    found = compare_group(by_arm, metrics, Claims(comparison=comparison)).by_metric
    return {
        name: Noise(of_metric.sd, of_metric.model.df, source, num_arms)
        for name, of_metric in found.items()
        if of_metric.sd  # a metric that never varies says nothing of one that will
    }


def _is_alike(wanted: Mapping[str, Any], stored: Mapping[str, Any], paths: Collection[str]) -> bool:
    """Return whether two configurations have one recipe, scale and data; these may lie elsewhere, by ``paths``."""
    try:
        named = (("objective", "recipe"), ("model", "scale"))
        data: Mapping[str, Any] = stored["data"]
        return all(wanted[part][name] == stored[part][name] for part, name in named) and all(
            wanted["data"].get(name) == value for name, value in data.items() if name not in paths
        )
    except (KeyError, TypeError, AttributeError):
        return False
