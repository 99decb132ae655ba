"""Whether a cluster and its nodes are there, asked of them directly: Ray takes much longer to see that one is not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence

from orchestrator.execution.capacity import ClusterLostError, Node
from orchestrator.execution.ray_cluster.reachability import is_reachable

LOOK_PERIOD_S = 2.0
"""Time between two looks at the cluster, and between two tries to join one that is gone; longest wait for an answer."""

COME_BACK_TIMEOUT_S = 3600.0
"""Longest wait for a cluster that is gone."""


class ClusterHealth:
    """When the cluster was looked at, since when it is gone, and which of its nodes fell silent."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        answers: Callable[..., bool] = is_reachable,
    ) -> None:
        """Start with a cluster that is there.

        Args:
            clock: Seconds, monotonic.
            answers: Returns whether somebody listens at an address, waiting up to ``timeout_s``.
        """
        self._clock = clock
        self._answers = answers
        self._looked_s = -math.inf
        self._gone_since_s: float | None = None
        self._silent: set[str] = set()

    @property
    def is_gone(self) -> bool:
        """Return whether the cluster was lost and has not come back."""
        return self._gone_since_s is not None

    def is_due(self) -> bool:
        """Return whether it is time for another look, or for another try to join; if so, this is it."""
        if self._clock() - self._looked_s < LOOK_PERIOD_S:
            return False
        self._looked_s = self._clock()
        return True

    def is_there(self, address: str) -> bool:
        """Return whether the head of the cluster answers at ``host:port``."""
        return self._answers(address, timeout_s=LOOK_PERIOD_S)

    def mark_lost(self) -> None:
        """Record that the cluster is gone."""
        self._gone_since_s = self._looked_s = self._clock()

    def mark_back(self) -> None:
        """Record that the cluster is there again; a look at its nodes is due."""
        self._gone_since_s, self._looked_s = None, -math.inf

    def raise_if_timed_out(self, error: Exception) -> None:
        """Raise if the cluster has been gone for too long.

        Args:
            error: Why it could not be joined.

        Raises:
            ClusterLostError: If it has.
        """
        if self._gone_since_s is not None and self._clock() - self._gone_since_s > COME_BACK_TIMEOUT_S:
            text = f"the cluster did not come back within {COME_BACK_TIMEOUT_S:g} s: {error}"
            raise ClusterLostError(text) from error

    def reachable(self, nodes: Sequence[Node], *, suspects: Collection[str] = ()) -> list[Node]:
        """Return the nodes without those that have fallen silent.

        Args:
            nodes: The nodes that the cluster counts as alive.
            suspects: Ids of nodes of which there is doubt. They are asked, as are those that were silent before.
        """
        doubtful = self._silent | set(suspects)
        asked = [node for node in nodes if node.node_id in doubtful]
        self._silent = {node.node_id for node in asked if not self._answers(node.address, timeout_s=LOOK_PERIOD_S)}
        return [node for node in nodes if node.node_id not in self._silent]
