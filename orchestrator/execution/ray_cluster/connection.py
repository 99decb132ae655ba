"""How this process joins a cluster and what it reads of it: the only module that uses Ray's private API.

Private are ``ray._private``'s ``authentication``, ``parameter``, ``state`` and ``worker``; tried with Ray 2.60.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import parameter
from ray._private import worker as ray_worker
from ray._private.parameter import RayParams
from ray.job_config import JobConfig

from orchestrator.execution.capacity import ClusterError, Node
from orchestrator.execution.ray_cluster.reachability import asks_for_token, check_reachable
from orchestrator.execution.ray_cluster.temporary_folder import shorten_temporary_folder
from orchestrator.trials.resources import usable_cores
from specvit.data import Dataset
from specvit.errors import DataError

_LOG = logging.getLogger(__name__)

NODE_LABEL = "ray.io/node-id"
"""The label by which Ray places a task or an actor on one node."""


DASHBOARD_SETTINGS: Mapping[str, str] = {
    "RAY_DASHBOARD_ENABLE_PROFILING": "1",
    "RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING": "1",
}
"""What Ray has to find in its environment when it starts, to show stack traces, profiles, and a log for each task."""


def connect(address: str | None, *, job_name: str = "") -> str:
    """Start or join a cluster.

    Args:
        address: ``host:port`` of a running cluster, ``auto`` to find one; None = start one on this machine.
        job_name: Name of this process as a job of the cluster; empty = it has none.

    Returns:
        The address of its dashboard, empty if it has none.

    Raises:
        ClusterError: If the cluster cannot be joined.
    """
    if address:
        check_reachable(address)
    else:
        shorten_temporary_folder()
    # A cluster that is already up has settled its dashboard; our own listens to this machine only.
    local: dict[str, Any] = {} if address else {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
    if not address and usable_cores() < (os.cpu_count() or 1):
        local["num_cpus"] = usable_cores()  # Ray counts the machine's, also where a job was given a few of them
    job = JobConfig(metadata={"job_name": job_name} if job_name else {})
    ray_worker.print_to_stdstream = log_message
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with (
            nullcontext() if address else _dashboard_settings(),
            nullcontext() if address else _any_agent_port(),
            _token_shown() if address and asks_for_token(address) else nullcontext(),
        ):
            context = ray.init(
                address=address or "local", job_config=job, log_to_driver=False, logging_level=logging.ERROR, **local
            )
    except (OSError, ValueError, RuntimeError) as error:
        if not address and isinstance(error, OSError) and not os.access(Path.home(), os.W_OK):
            raise ClusterError(
                f"Ray's token cannot be written to {Path.home() / '.ray'} ({error.strerror}): "
                "set HOME to a folder that can be written, or RAY_AUTH_TOKEN"
            ) from error
        hint = "; if it asks for a token, that has to be in ~/.ray/auth_token or RAY_AUTH_TOKEN" if address else ""
        raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {error}{hint}") from error
    if threading.current_thread() is threading.main_thread():
        # Ray has taken SIGTERM for itself and would exit on the spot; what it means is for whoever runs us to say.
        signal.signal(signal.SIGTERM, on_sigterm)
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""


def log_message(data: Mapping[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001
    """Log what Ray tells the driver of lost workers and the like, which it would print over the live view.

    As information, since what it means for a trial is an event of the trial.
    """
    for line in data["lines"]:
        _LOG.info("Ray: %s", line)


@contextmanager
def _dashboard_settings() -> Iterator[None]:
    """Give a cluster of our own what its dashboard needs, py-spy on the path among it, unless the user has set it."""
    before = dict(os.environ)
    os.environ |= {name: value for name, value in DASHBOARD_SETTINGS.items() if name not in before}
    if shutil.which("py-spy") is None:  # it is installed with Ray, in an environment that need not be activated
        os.environ["PATH"] = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), before.get("PATH")]))
    try:
        yield
    finally:
        for name in (*DASHBOARD_SETTINGS, "PATH"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


@contextmanager
def _any_agent_port() -> Iterator[None]:
    """Let the agent of the dashboard of a cluster of our own listen at any port that is free.

    Ray gives it 52365, and ``ray.init`` no option. Where another Ray of the machine has that, the agent ends without a
    word, and with it go logs, stack traces and metrics of that node. 0 is what Ray's own tests pass.
    """
    with_any_port = partial(RayParams, dashboard_agent_listen_port=0)
    parameter.RayParams = with_any_port  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        parameter.RayParams = RayParams  # type: ignore[misc]


@contextmanager
def _token_shown() -> Iterator[None]:
    """Show Ray's token, if there is one here, to a cluster at an address that asks for it.

    Ray by itself does so to its own only. Shown to a cluster without tokens, its workers would be asked for one.
    """
    mode = os.environ.get("RAY_AUTH_MODE")
    logging.getLogger("ray").setLevel(logging.ERROR)
    with suppress(ImportError):  # releases of Ray before 2.60 have no such default
        from ray._private.authentication import authentication_token_setup

        authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        yield
    finally:
        # Not for the nodes that others may start from this process.
        if mode is None:
            os.environ.pop("RAY_AUTH_MODE", None)


def alive_nodes() -> list[Node]:
    """Return the nodes that the cluster counts as alive."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(n["NodeID"], n["Resources"], n.get("Labels") or {}, f"{n['NodeManagerAddress']}:{n['NodeManagerPort']}")
        for n in nodes
        if n["Alive"]
    ]


def free_amounts() -> dict[str, dict[str, float]]:
    """Return what nobody occupies of each node, by its id and by the names of resources; a second or so old."""
    return dict(ray._private.state.state.available_resources_per_node())  # type: ignore[no-untyped-call]


def other_jobs() -> list[str]:
    """Return the jobs of the cluster beside this one, human-readable: ``python train.py (192.0.2.2, process 7)``."""
    own_id = ray.get_runtime_context().get_job_id()
    return [
        f"{job['Entrypoint']} ({job['DriverIPAddress']}, process {job['DriverPid']})"
        for job in ray._private.state.jobs()  # type: ignore[no-untyped-call]
        if not job["IsDead"] and job["JobID"] != own_id
    ]


def request_room(bundles: Sequence[Mapping[str, float]], selectors: Sequence[Mapping[str, str]]) -> None:
    """Ask the cluster's autoscaler for nodes that have room for all bundles at once; without one, nothing happens.

    It is the whole cluster's request, and lasts until the next one.

    Args:
        bundles: Amounts by the names of resources.
        selectors: Labels that the node of each must have.
    """
    from ray.autoscaler.sdk import request_resources

    request_resources(
        bundles=[dict(bundle) for bundle in bundles], bundle_label_selectors=[dict(labels) for labels in selectors]
    )


def draining_nodes() -> frozenset[str]:
    """Return the ids of the nodes that are about to go."""
    return frozenset(ray._private.state.state.get_draining_nodes())


def fetch_dataset(reference: Any) -> Dataset:
    """Return data from the object store.

    Raises:
        DataError: If this machine cannot read them.
    """
    try:
        dataset: Dataset = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise DataError(str(error).partition("\n")[0].removeprefix("System error: ")) from error
    return dataset


def host_address() -> str:
    """Return the address of this process's machine."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
