"""Watching a sweep: live view, status, events, Prometheus.

Beside a run, ``SweepProgress`` keeps what is known of it, and ``LiveView`` and ``PrometheusExporter`` read that: all
three are callbacks of the scheduler, ``SweepProgress`` the first. From elsewhere, ``SweepStatus`` reads the ledger, and
so do the processes of trackers, which ``tracking`` starts.

What must hold: nothing here decides anything or writes to the ledger; whatever comes from a sweep file or a trial is
printed without control characters.
"""

# Lazily, since the process of a tracker needs nothing that shows a sweep.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.monitoring.live_view import LiveView
    from orchestrator.monitoring.prometheus import PrometheusExporter
    from orchestrator.monitoring.status import SweepStatus
    from orchestrator.monitoring.sweep_progress import SweepProgress

__all__ = ["LiveView", "PrometheusExporter", "SweepProgress", "SweepStatus"]

_HOMES = {
    "LiveView": "live_view",
    "PrometheusExporter": "prometheus",
    "SweepProgress": "sweep_progress",
    "SweepStatus": "status",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
