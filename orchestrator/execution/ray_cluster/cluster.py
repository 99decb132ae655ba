"""The Ray cluster that this process has joined: whether it is there, its nodes, its metrics, the data in its store."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge

from orchestrator.execution.capacity import ClusterError, Node
from orchestrator.execution.metrics import Sample
from orchestrator.execution.ray_cluster.connection import connect, free_amounts
from orchestrator.execution.ray_cluster.health import ClusterHealth
from orchestrator.execution.ray_cluster.node_admission import NodeAdmission
from orchestrator.execution.ray_cluster.node_check import NodeRequirements
from specvit.data import Dataset, DataSource

_LOG = logging.getLogger(__name__)


class Cluster:
    """A cluster that was joined, and is joined again when it was gone.

    Attributes:
        dashboard_url: Address of its dashboard, empty if it has none.
        references: References to the data of each source, in its object store.
    """

    def __init__(
        self,
        datasets: Mapping[DataSource, Dataset],
        *,
        address: str | None,
        wanted: NodeRequirements,
        job_name: str = "",
    ) -> None:
        """Start or join the cluster; for the arguments see ``RayExecutor``.

        Raises:
            ClusterError: If the cluster cannot be reached, or a node lacks something.
        """
        self._datasets, self._wanted, self._job_name = datasets, wanted, job_name
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self._health = ClusterHealth()
        self._instruments: dict[str, Any] = {}
        try:
            self._join()
        except ClusterError as error:
            if self._address == address:
                raise
            raise ClusterError(f"{error} (RAY_ADDRESS is set; --address would go before it)") from error

    @property
    def is_gone(self) -> bool:
        """Return whether the cluster was lost and has not come back."""
        return self._health.is_gone

    @property
    def leaving(self) -> frozenset[str]:
        """Return the ids of the nodes that were about to go at the last look."""
        return self._admission.leaving

    @property
    def alive(self) -> frozenset[str]:
        """Return the ids of the nodes that answered at the last look."""
        return self._admission.alive

    def is_due(self) -> bool:
        """Return whether it is time for another look at the cluster; if so, this is it."""
        return self._health.is_due()

    def is_there(self) -> bool:
        """Return whether the head of the cluster answers."""
        return self._health.is_there(self._gcs_address)

    def usable_nodes(self, suspects: Collection[str] = ()) -> tuple[Node, ...]:
        """Look at the cluster; return its nodes that can be used.

        Args:
            suspects: Ids of the nodes where a worker was lost: Ray takes a while to see that a node is.
        """
        return self._admission.usable(suspects)

    def free_amounts(self) -> Mapping[str, Mapping[str, float]]:
        """Return what nobody occupies of each node, by its id and by the names of resources."""
        return free_amounts()

    def publish(self, samples: Sequence[Sample]) -> None:
        """Set metrics, which Prometheus collects from Ray; does nothing while the cluster is gone."""
        for sample in () if self.is_gone else samples:
            kind = Counter if sample.is_counter else Gauge
            if sample.name not in self._instruments:
                self._instruments[sample.name] = kind(sample.name, sample.text, tag_keys=tuple(sample.tags))
            instrument = self._instruments[sample.name]
            (instrument.inc if sample.is_counter else instrument.set)(sample.value, tags=dict(sample.tags))

    def leave(self) -> None:
        """Leave the cluster; one of our own ends."""
        ray.shutdown()

    def mark_lost(self) -> None:
        """Leave what is left of a cluster that is gone; from now on it is waited for."""
        _LOG.warning("the Ray cluster at %s is gone; waiting for it to come back", self._gcs_address)
        self._instruments = {}
        self._health.mark_lost()
        with suppress(Exception):
            ray.shutdown()

    def wait(self, timeout_s: float) -> bool:
        """Try from time to time to join the cluster again; return whether it is back.

        Raises:
            ClusterLostError: If it has been gone for too long.
        """
        if not self._health.is_due():
            time.sleep(timeout_s)
            return False
        try:
            self._join()
        except (ClusterError, ray.exceptions.RayError) as error:
            self._health.raise_if_timed_out(error)
            return False
        self._health.mark_back()
        _LOG.warning("the Ray cluster is back")
        return True

    def _join(self) -> None:
        """Start or join the cluster, hand it the data, and check its nodes."""
        self.dashboard_url = connect(self._address, job_name=self._job_name)
        try:
            context = ray.get_runtime_context()
            self._gcs_address = context.gcs_address
            self.references = {source: ray.put(dataset) for source, dataset in self._datasets.items()}
            self._admission = NodeAdmission(
                self._wanted, self.references, own_node=context.get_node_id(), health=self._health
            )
            self._admission.require()
        except BaseException:
            ray.shutdown()
            raise
