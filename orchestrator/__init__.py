"""How trials are expanded, dispatched, judged, recorded and tabulated.

Front doors: ``run.run_sweep`` (from a sweep to its tables), ``plan.make_plan``, ``power.measure_power``,
``control`` (what commands to a running sweep do), ``publish.publish``, ``diagnose.diagnose_model``, and for notebooks
``load``, which is offered here; ``cli`` is the command line. Rooms import from floors below only (see CONTRIBUTING);
``execution.ray_cluster`` alone imports ray, ``ledger`` alone speaks SQL. Importing this imports nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.results import SweepResults, load

__all__ = ["SweepResults", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("orchestrator.results"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
