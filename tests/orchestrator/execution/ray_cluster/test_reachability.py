from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from orchestrator.execution.ray_cluster.reachability import asks_for_token


def test_where_nobody_listens_nobody_asks_for_a_token() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert not asks_for_token(address)
    assert not asks_for_token("auto")
    assert not asks_for_token("ray://127.0.0.1:10001")


def test_a_token_is_asked_for_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: object, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

    method = grpc.unary_unary_rpc_method_handler(refuse)
    server = grpc.server(ThreadPoolExecutor(1))
    handlers = grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", {"GetClusterId": method})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert asks_for_token(f"127.0.0.1:{port}")
    finally:
        server.stop(None)
