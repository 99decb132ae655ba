"""Probes, one file each. ``PROBES`` is what the ``probes`` section of a sweep file may name."""

from __future__ import annotations

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.registry import discover

PROBES = discover(__name__, Probe, key="name")  # type: ignore[type-abstract]

METRICS: dict[str, Metric] = {metric.name: metric for probe in PROBES.values() for metric in probe.metrics}

__all__ = ["METRICS", "PROBES", "Metric", "Probe", "ProbeSplit"]
