"""Whether a process listens at an address, asked by TCP and gRPC: Ray itself would try for more than ten minutes."""

from __future__ import annotations

import socket

from orchestrator.execution.capacity import ClusterError

CONNECT_TIMEOUT_S = 10.0
"""Longest wait for a cluster's first answer."""


def check_reachable(address: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Raise if nobody listens at ``host:port``; addresses of other forms are left to Ray.

    Raises:
        ClusterError: If nobody does.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=timeout_s).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster at {address}: {error}") from error


def is_reachable(address: str, *, timeout_s: float) -> bool:
    """Return whether somebody listens at ``host:port``; also true if that cannot be asked."""
    try:
        check_reachable(address, timeout_s=timeout_s)
    except ClusterError:
        return False
    return True


def asks_for_token(address: str) -> bool:
    """Return whether the cluster at ``host:port`` refuses calls without a token; False if that is not known.

    Source: Ray's control service answers any call without a token by gRPC's UNAUTHENTICATED.
    """
    import grpc

    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return False
    # Ray itself never goes through a proxy.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=CONNECT_TIMEOUT_S)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED)
    return False
