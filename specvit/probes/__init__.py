"""Probes: what frozen features of a backbone tell, a file or a folder each.

``PROBES`` lists them, ``SelectedProbes`` is what the ``probes`` section of a sweep file may name; ``evaluate`` of a
probe turns two ``ProbeSplit``s into its metrics. Settings load without torch. Hyper-parameters are chosen on a tenth of
the training split, the same for every arm; the reported split chooses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from specvit.plugins import ByName, LazyMapping, PartTable
from specvit.probes.attentive import Attentive
from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.probes.clustering import Clustering
from specvit.probes.depth import Depth
from specvit.probes.detection import Detection
from specvit.probes.in_context import InContext
from specvit.probes.knn import Knn
from specvit.probes.linear import Linear
from specvit.probes.segmentation import Segmentation
from specvit.training.learnt import is_learning_metric


def _check_metrics(probe: type[Probe], others: Iterable[type[Probe]]) -> str | None:
    """Return what is wrong with the metrics of a probe: two of one name would be one column of a table."""
    metrics = probe.metrics
    if not (isinstance(metrics, tuple) and metrics and all(isinstance(metric, Metric) for metric in metrics)):
        return f"{probe.__qualname__}.metrics must be a tuple of at least one Metric, not {metrics!r}"
    taken = {metric.name: f"probe {other.name!r}" for other in others for metric in other.metrics}
    taken["loss"] = "the recipes"
    for metric in metrics:
        if metric.name in taken:
            return f"the metric {metric.name!r} is reported by {taken[metric.name]} already"
        if is_learning_metric(metric.name):
            return f"the metric {metric.name!r} has a name that the recipes use for what was learnt"
        taken[metric.name] = "the probe itself"
    return None


PROBES: PartTable[Probe] = PartTable(
    Probe,
    (
        Attentive,
        Clustering,
        Depth,
        Detection,
        InContext,
        Knn,
        Linear,
        Segmentation,
    ),
    group="specsweep.probes",
    package=__name__,
    check=_check_metrics,
)

SelectedProbes = Annotated[tuple[Probe, ...], ByName(PROBES)]
"""The probes that are on, in the order of the table; written as a mapping of their names to their settings."""

METRICS: LazyMapping[Metric] = LazyMapping(
    lambda: {metric.name: metric for probe in PROBES.values() for metric in probe.metrics}
)
"""What is known of the metrics of all probes, by their names."""

__all__ = [
    "METRICS",
    "PROBES",
    "Attentive",
    "Clustering",
    "Depth",
    "Detection",
    "InContext",
    "Knn",
    "Linear",
    "Metric",
    "Probe",
    "ProbeSplit",
    "Segmentation",
    "SelectedProbes",
]
