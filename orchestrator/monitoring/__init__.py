"""Watching a sweep: live view, status, events, Prometheus.

Beside a run, ``SweepProgress`` keeps what is known of it, and ``LiveView`` and ``PrometheusExporter`` read that: all
three are callbacks of the scheduler, ``SweepProgress`` the first. From elsewhere, ``SweepStatus`` reads the ledger.

What must hold: nothing here decides anything or writes to the ledger; whatever comes from a sweep file or a trial is
printed without control characters.
"""

from orchestrator.monitoring.live_view import LiveView
from orchestrator.monitoring.prometheus import PrometheusExporter
from orchestrator.monitoring.status import SweepStatus
from orchestrator.monitoring.sweep_progress import SweepProgress

__all__ = ["LiveView", "PrometheusExporter", "SweepProgress", "SweepStatus"]
