"""Where trials run: the executor protocol, the worker, and the executors local, simulated and on Ray.

Front door: an ``Executor`` takes a ``Job`` and returns events: ``LocalExecutor`` in this process, ``DebugExecutor``
with a debugger, ``SimulatedExecutor`` on a clock that jumps, ``ray_cluster.RayExecutor`` on a cluster.
What must hold: nothing is decided here; every outcome of a trial is an event of its attempt, and after a kill there is
none; an executor passes ``ExecutorContract`` (tests); only ``ray_cluster`` imports ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.execution.capacity import ClusterError, ClusterLostError, Node
    from orchestrator.execution.executor import Executor, Job, Machine
    from orchestrator.execution.local import DebugExecutor, LocalExecutor
    from orchestrator.execution.simulated import Conditions, SimulatedExecutor

__all__ = [
    "ClusterError",
    "ClusterLostError",
    "Conditions",
    "DebugExecutor",
    "Executor",
    "Job",
    "LocalExecutor",
    "Machine",
    "Node",
    "SimulatedExecutor",
]

_HOMES = {
    "ClusterError": "capacity",
    "ClusterLostError": "capacity",
    "Conditions": "simulated",
    "DebugExecutor": "local",
    "Executor": "executor",
    "Job": "executor",
    "LocalExecutor": "local",
    "Machine": "executor",
    "Node": "capacity",
    "SimulatedExecutor": "simulated",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
