"""Ray's dashboard and its token: our own listens to this machine alone."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.mark.parametrize("address", [None, "ray.example:6379"])
def test_our_own_dashboard_is_told_to_listen_to_this_machine_alone_and_the_token_stays(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.execution.ray_cluster import connection

    given: dict[str, Any] = {}

    def init(**options: Any) -> SimpleNamespace:
        given.update(options, mode=os.environ.get("RAY_AUTH_MODE"))
        return SimpleNamespace(dashboard_url="127.0.0.1:8265")

    monkeypatch.setattr(connection.ray, "init", init)
    monkeypatch.setattr(connection, "check_reachable", lambda _: None)
    for mode in (None, "token"):
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        connection.connect(address)
        assert given["mode"] in (None, "token")
        assert os.environ.get("RAY_AUTH_MODE") == mode
        # A cluster that is up already has settled where its dashboard listens.
        assert given.get("dashboard_host") == ("127.0.0.1" if address is None else None)
