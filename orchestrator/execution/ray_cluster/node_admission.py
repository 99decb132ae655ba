"""Which nodes of a cluster are used: those that answer, that stay, and that have the driver's code and the data."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import ray

from orchestrator.execution.capacity import ClusterError, Node
from orchestrator.execution.ray_cluster.connection import NODE_LABEL, alive_nodes, draining_nodes, fetch_dataset
from orchestrator.execution.ray_cluster.failures import reason_of
from orchestrator.execution.ray_cluster.health import ClusterHealth
from orchestrator.execution.ray_cluster.node_check import NodeReport, NodeRequirements, inspect_node, mismatch
from specvit.data import DataSource

CHECK_TIMEOUT_S = 120.0
"""Longest wait for the reports of the nodes that a cluster starts with."""

_LOG = logging.getLogger(__name__)


class NodeAdmission:
    """The nodes of a cluster, each checked once by a task that runs there.

    Attributes:
        alive: Ids of the nodes that answer.
        leaving: Ids of the nodes that are about to go.
    """

    def __init__(
        self, wanted: NodeRequirements, references: Mapping[DataSource, Any], *, own_node: str, health: ClusterHealth
    ) -> None:
        """Start without a checked node.

        Args:
            wanted: What a node must have.
            references: References to the data of each source, which a node must be able to read.
            own_node: Id of the node of this process, which has loaded the data.
            health: Asks nodes whether they are there.
        """
        self._wanted, self._references, self._own_node, self._health = wanted, references, own_node, health
        self._asked: dict[str, Any] = {}
        self._passed: dict[str, bool] = {}
        self.alive: frozenset[str] = frozenset()
        self.leaving: frozenset[str] = frozenset()

    def require(self) -> None:
        """Check the nodes that the cluster starts with, all at the same time; some may be going just now.

        Raises:
            ClusterError: If one that stays lacks something.
        """
        nodes = self._staying()
        while True:
            try:
                for node_id, wrong in self._reports(nodes, timeout_s=CHECK_TIMEOUT_S):
                    if wrong:
                        raise ClusterError(f"node {node_id[:12]} of the cluster: {wrong}")
                return
            except ClusterError:
                before, nodes = nodes, self._staying()
                if {node.node_id for node in before} <= {node.node_id for node in nodes}:
                    raise

    def usable(self, suspects: Collection[str] = ()) -> tuple[Node, ...]:
        """Look at the cluster; return its nodes that can be used: of the new ones, those that have reported.

        Args:
            suspects: Ids of the nodes where a worker was lost: Ray takes a while to see that a node is.
        """
        nodes = self._health.reachable(alive_nodes(), suspects=suspects)
        self.alive, self.leaving = frozenset(node.node_id for node in nodes), draining_nodes()
        staying = [node for node in nodes if node.node_id not in self.leaving]
        for node_id, wrong in self._reports(staying, timeout_s=0.0):
            if wrong:
                _LOG.warning("node %s has joined the cluster, but is not used: %s", node_id[:12], wrong)
        return tuple(node for node in staying if self._passed.get(node.node_id))

    def _staying(self) -> list[Node]:
        """Return the nodes that answer, all of them asked, and are not about to go."""
        nodes, leaving = alive_nodes(), draining_nodes()
        nodes = self._health.reachable(nodes, suspects=[node.node_id for node in nodes])
        return [node for node in nodes if node.node_id not in leaving]

    def _reports(self, nodes: Sequence[Node], *, timeout_s: float) -> Iterator[tuple[str, str]]:
        """Yield the ids of nodes that have reported for the first time, and what they lack, empty if nothing."""
        for node in nodes:
            if node.node_id not in self._passed and node.node_id not in self._asked:
                self._asked[node.node_id] = self._ask(node)
        until_s = time.monotonic() + timeout_s
        for node_id, asked in list(self._asked.items()):
            wrong = self._lacks(asked, max(0.0, until_s - time.monotonic()))
            if wrong is None and timeout_s:
                wrong = f"it did not answer within {timeout_s:g} s"
            if wrong is not None:
                del self._asked[node_id]
                self._passed[node_id] = not wrong
                yield node_id, wrong

    def _ask(self, node: Node) -> Any:
        """Return a reference to a node's report; this process's own machine need not fetch the data."""
        references = {} if node.node_id == self._own_node else self._references
        options = {"num_cpus": 0, "label_selector": {NODE_LABEL: node.node_id}, "name": "check of a node"}
        # Its process ends with it: what it takes of the memory of GPUs, trials are to have.
        return ray.remote(max_calls=1)(_inspect).options(**options).remote(self._wanted, references)

    def _lacks(self, asked: Any, timeout_s: float) -> str | None:
        """Return what a node lacks, empty if nothing; None if it has not reported yet."""
        try:
            found: NodeReport = ray.get(asked, timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            return None
        except ray.exceptions.RayError as error:
            return f"it cannot run specsweep ({reason_of(error)})"
        if not found.sees_path:
            _LOG.warning("%s does not see the results folder: states of trials that run there are lost", found.host)
        return mismatch(self._wanted, found)


def _inspect(wanted: NodeRequirements, references: Mapping[DataSource, Any]) -> NodeReport:
    return inspect_node(wanted, references, fetch=fetch_dataset)
