"""The executor on a Ray cluster, of this machine or of many.

Front door: ``RayExecutor``, and ``NodeRequirements`` for what its nodes must have.
What must hold: ray is imported nowhere else, and its private API is used in ``connection`` alone; a worker, a node or a
cluster that is lost ends attempts, never the sweep; no node computes a trial with other code or data than the driver's.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.execution.ray_cluster.executor import RayExecutor
    from orchestrator.execution.ray_cluster.node_check import NodeRequirements

# Ray reads this when it is imported: no calls home.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__all__ = ["NodeRequirements", "RayExecutor"]

_HOMES = {"NodeRequirements": "node_check", "RayExecutor": "executor"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
