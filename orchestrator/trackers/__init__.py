"""Who is told of a sweep: experiment trackers, a file each, and the addresses that get a message at its end.

``TRACKERS`` lists the trackers, ``SelectedTrackers`` and ``Addresses`` are what the fields ``trackers`` and ``notify``
of a sweep file may hold. A tracker's settings load without its package; ``connect`` imports it, in a process of its own
(``orchestrator.monitoring.tracking``), where a ``Feed`` turns the ledger's events into its runs.
What must hold: the ledger decides what a run shows, so that telling it again changes nothing; no password or key stands
in a sweep file or is printed; nothing is sent that the user did not ask for.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.trackers.addresses import Addresses
from orchestrator.trackers.base import TrackedRun, Tracker, TrackerClient
from orchestrator.trackers.mlflow import MLflow
from orchestrator.trackers.tensorboard import TensorBoard
from orchestrator.trackers.trackio import Trackio
from orchestrator.trackers.wandb import WeightsAndBiases
from specvit.errors import ConfigError
from specvit.plugins import OneOf, PartTable

TRACKERS: PartTable[Tracker] = PartTable(
    Tracker,
    (
        TensorBoard,
        MLflow,
        WeightsAndBiases,
        Trackio,
    ),
    group="specsweep.trackers",
    package=__name__,
    discriminator="tracker",
)


def _check_unique(trackers: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
    names = [tracker.name for tracker in trackers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"must hold each tracker once, but {name!r} comes {names.count(name)} times")
    return trackers


AnyTracker = Annotated[Tracker, OneOf(TRACKERS)]
TrackerEntry = Annotated[
    AnyTracker, BeforeValidator(TRACKERS.read_name), Field(json_schema_extra=TRACKERS.allow_names)
]
SelectedTrackers = Annotated[tuple[TrackerEntry, ...], AfterValidator(_check_unique)]
"""The trackers that are on: names, or settings that name one, ``{tracker: mlflow, experiment: x}``."""

__all__ = [
    "TRACKERS",
    "Addresses",
    "AnyTracker",
    "MLflow",
    "SelectedTrackers",
    "TensorBoard",
    "TrackedRun",
    "Tracker",
    "TrackerClient",
    "TrackerEntry",
    "Trackio",
    "WeightsAndBiases",
]
