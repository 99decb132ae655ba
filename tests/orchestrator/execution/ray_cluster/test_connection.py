from __future__ import annotations

import inspect
import logging

import pytest
from ray._private import worker

from orchestrator.execution.ray_cluster.connection import log_message


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
