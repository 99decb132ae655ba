from __future__ import annotations

import inspect
import logging
import socket

import pytest
from ray._private import worker

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.ray_cluster.connection import log_message
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.trials.resources import ResourceRequest


def test_what_ray_tells_of_its_workers_is_logged_and_not_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="orchestrator"):
        log_message({"lines": ["A worker died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert caplog.messages == ["Ray: A worker died"]
    assert capfd.readouterr() == ("", "")


def test_ray_still_prints_its_messages_by_the_function_that_is_replaced() -> None:
    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages)
    assert {*inspect.signature(log_message).parameters} == {"data", "ignore_prefix"}


@pytest.mark.parametrize("is_set", [False, True], ids=["--address", "RAY_ADDRESS"])
def test_an_address_where_nobody_listens_is_refused_at_once(is_set: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    if is_set:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match=f"no Ray cluster at {address}") as refused:
        RayExecutor({}, shares=[ResourceRequest()], max_slots=1, address=None if is_set else address)
    assert ("RAY_ADDRESS is set" in str(refused.value)) == is_set
