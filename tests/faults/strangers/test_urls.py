"""Results at URLs: what a pointer and a lock there may say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.storage.ledger_mirror import Pointer
from orchestrator.storage.remote_folder import RemoteError
from orchestrator.storage.remote_lock import Holder

from .hostile_results import HOSTILE


@pytest.mark.parametrize(
    "values",
    [
        {"generation": "1", "sha256": "0" * 64},
        {"generation": True, "sha256": "0" * 64},
        {"generation": 1, "sha256": ["0" * 64]},
        {"generation": 1, "sha256": "0" * 61 + "/.."},
        "[" * 100_000,
    ],
    ids=["text", "bool", "list", "path", "deep"],
)
def test_a_pointer_that_names_no_snapshot_is_refused(values: dict[str, Any] | str) -> None:
    text = values if isinstance(values, str) else json.dumps({"host": HOSTILE, "pid": 1, "at": ""} | values)
    with pytest.raises(RemoteError, match="does not say where the ledger is"):
        Pointer.parse(text.encode(), place="store")


@pytest.mark.parametrize(
    "change",
    [{"pid": HOSTILE}, {"host": HOSTILE}, {"since": "a\nb"}, {"period_s": 10**400}, {"period_s": "nan"}, {"beat": []}],
    ids=str,
)
def test_a_lock_at_a_url_that_says_what_no_driver_says_names_nobody(change: dict[str, Any]) -> None:
    values = {"token": "t", "host": "h", "pid": 1, "since": "s"}
    assert Holder.parse(json.dumps(values).encode()) is not None
    assert Holder.parse(json.dumps(values | change).encode()) is None
    assert Holder.parse(b"[" * 100_000) is None
