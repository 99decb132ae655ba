"""Configurations as they are stored, and the trainings that are on record with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.trials.identity import ADDED_LATER, evaluation_ids, trial_id
from specvit.config import TrialConfig
from specvit.data import DataSource
from specvit.data.encoded import SKIPPED_METRIC
from specvit.diagnostics.measurement import Measurement
from specvit.kept_weights import WeightsFile
from specvit.training.cost import TrainingCost


@cache
def _adapter() -> TypeAdapter[TrialConfig]:
    """Return what validates configurations; building it takes too long for commands that do not."""
    return TypeAdapter(TrialConfig)


@dataclass(frozen=True)
class StoredResult:
    """The result of a trial that is done, with all that can be of use to another trial of the same training.

    Attributes:
        trial_id: The trial.
        label: Its name, human-readable.
        config: Its configuration.
        fingerprints: Those of the data that it saw, in the order of ``config.sources``.
        metrics: Its final metrics.
        cost: What its training took; None if that is not known.
        diagnostics: What was read off its backbone.
        weights: The files of its weights that are kept.
    """

    trial_id: str
    label: str
    config: TrialConfig
    fingerprints: tuple[str, ...]
    metrics: Mapping[str, float]
    cost: TrainingCost | None = None
    diagnostics: tuple[Measurement, ...] = ()
    weights: tuple[WeightsFile, ...] = ()

    @property
    def backbone(self) -> str:
        """Return the name of the backbone: two results with the same one are of the very same."""
        return next((file.sha256 for file in self.weights if file.is_probed), self.trial_id)

    def evaluations(self) -> dict[tuple[str, str], dict[str, float]]:
        """Return the metrics of each evaluation, by its id and the fingerprint of its data."""
        print_of = dict(zip(self.config.sources, self.fingerprints, strict=True))
        ids = evaluation_ids(self.config)
        found = {}
        for probe in self.config.probes:
            names = [metric.name for metric in probe.metrics]
            if all(name in self.metrics for name in names):
                key = ids[probe.name], print_of[probe.data or self.config.data]
                found[key] = {name: self.metrics[name] for name in names}
        return found

    def training_metrics(self) -> dict[str, float]:
        """Return the metrics that no probe has a part in: the loss, and what was learnt."""
        of_probes = {metric.name for probe in self.config.probes for metric in probe.metrics} | {SKIPPED_METRIC}
        return {name: value for name, value in self.metrics.items() if name not in of_probes}


def read_config(stored: Mapping[str, Any], stored_id: str) -> TrialConfig | None:
    """Return the configuration that a ledger holds as JSON values; None if that cannot be said for sure.

    It is taken for what it was only if it has the id that it had: one of other probes, say, or of an older protocol, is
    another trial's. A setting that came later has the value under which everything is as before.
    """
    try:
        config = _with_added(_adapter().validate_python(stored), stored)
        return config if trial_id(config) == stored_id else None
    except (ValidationError, TypeError, ValueError):
        return None


def _with_added(settings: Any, stored: Any) -> Any:
    """Return settings with the values of before in those fields that were not stored, one level after the other."""
    if isinstance(settings, tuple) and isinstance(stored, Mapping):  # probes, by name
        return tuple(_with_added(each, stored.get(each.name, {})) for each in settings)
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type) or not isinstance(stored, Mapping):
        return settings
    changed: dict[str, Any] = {}
    for base in type(settings).__mro__:
        for name, neutral in ADDED_LATER.get(base.__name__, {}).items():
            if name not in stored and hasattr(settings, name):
                changed[name] = tuple(neutral) if isinstance(neutral, list) else neutral
    for field in dataclasses.fields(settings):
        if field.name in stored:
            value = getattr(settings, field.name)
            deeper = _with_added(value, stored[field.name])
            if deeper is not value:
                changed[field.name] = deeper
    return dataclasses.replace(settings, **changed) if changed else settings


@dataclass(frozen=True)
class KeptTraining:
    """What a trial need not compute, since another one of the same training has: its part of the result.

    Attributes:
        source: Id of the trial whose backbone it is.
        label: Its name, human-readable.
        metrics: What is known: of the training, and of the evaluations that both trials have.
        missing: The trial's configuration with the evaluations alone that are to be done; None = nothing is missing.
        cost: What the training took; None if that is not known.
        diagnostics: What was read off the backbone, if the trial asks for it.
        weights: The files of its weights that are kept.
    """

    source: str
    label: str
    metrics: Mapping[str, float]
    missing: TrialConfig | None = None
    cost: TrainingCost | None = None
    diagnostics: tuple[Measurement, ...] = ()
    weights: tuple[WeightsFile, ...] = ()

    @property
    def probed(self) -> WeightsFile | None:
        """Return the file of the backbone that probes look at; None if it was not kept."""
        return next((file for file in self.weights if file.is_probed), None)


def find_kept(
    config: TrialConfig, results: Sequence[StoredResult], fingerprints: Mapping[DataSource, str]
) -> KeptTraining | None:
    """Return what results of the same training hold of a trial's; None if there is none.

    Numbers of two backbones are never put together, also where their configurations are the same: a training that was
    done twice may have ended in two. Floors, which are built anew, are the same each time.

    Args:
        config: The trial's.
        results: Those of trials with its ``training_id``.
        fingerprints: Of its data, as far as these are loaded; others are taken to be as they were.
    """
    wanted = evaluation_ids(config)
    print_of = {source: fingerprints.get(source) for source in config.sources}
    families: dict[str, list[StoredResult]] = {}
    for result in results:
        if print_of[config.data] in (None, result.fingerprints[0]):
            families.setdefault(result.backbone if config.treatment.is_trained else "", []).append(result)
    best: KeptTraining | None = None
    for family in families.values():
        known = family[0].training_metrics() | _most_skipped(config, family)
        missing = []
        for probe in config.probes:
            found = _evaluated(family, wanted[probe.name], print_of[probe.data or config.data])
            known |= found or {}
            missing += [probe] if found is None else []
        measured = next((each.diagnostics for each in family if each.diagnostics), ())
        needs_diagnostics = config.diagnostics and not measured and config.treatment.kind != "raw_pixels"
        kept = KeptTraining(
            family[0].trial_id,
            family[0].label,
            known,
            replace(config, probes=tuple(missing), diagnostics=needs_diagnostics)
            if missing or needs_diagnostics
            else None,
            next((each.cost for each in family if each.cost is not None), None),
            measured if config.diagnostics else (),
            next((each.weights for each in family if each.weights), ()),
        )
        if best is None or _worth(kept) > _worth(best):
            best = kept
    return best


def _evaluated(family: Sequence[StoredResult], wanted: str, fingerprint: str | None) -> dict[str, float] | None:
    for result in family:
        for (evaluation, data), metrics in result.evaluations().items():
            if evaluation == wanted and fingerprint in (None, data):
                return metrics
    return None


def _most_skipped(config: TrialConfig, family: Sequence[StoredResult]) -> dict[str, float]:
    """Return how many bad files results have left out, at least: which these were is not known any more."""
    may_skip = any(getattr(source, "on_bad_image", "fail") == "skip" for source in config.sources)
    counts = [each.metrics[SKIPPED_METRIC] for each in family if SKIPPED_METRIC in each.metrics]
    return {SKIPPED_METRIC: max(counts)} if may_skip and counts else {}


def _worth(kept: KeptTraining) -> tuple[bool, bool, int]:
    """Return what makes one training of a kind better to go on with than another."""
    return kept.missing is None, kept.probed is not None, len(kept.metrics)
