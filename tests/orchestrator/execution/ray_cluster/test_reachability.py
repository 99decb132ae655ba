from __future__ import annotations

import socket

from orchestrator.execution.ray_cluster.reachability import asks_for_token


def test_where_nobody_listens_nobody_asks_for_a_token() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert not asks_for_token(address)
    assert not asks_for_token("auto")
    assert not asks_for_token("ray://127.0.0.1:10001")
