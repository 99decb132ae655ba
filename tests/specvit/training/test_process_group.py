from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch.distributed as dist

from specvit.training import collectives
from specvit.training.process_group import LOOPBACK, Rendezvous, open_rendezvous, process_group


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bring back what the user has set."""
    with monkeypatch.context() as patch:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            patch.setenv(name, "", prepend=":")
            patch.delenv(name)
        yield


def test_the_store_listens_at_its_address_alone() -> None:
    store, rendezvous = open_rendezvous()
    assert rendezvous == Rendezvous(LOOPBACK, store.port)
    socket.create_connection((LOOPBACK, rendezvous.port), timeout=5.0).close()
    if sys.platform.startswith("linux"):  # all of 127.0.0.0/8 is this machine
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", rendezvous.port), timeout=5.0)


def test_a_process_is_one_of_a_group_within_the_context_only() -> None:
    store, rendezvous = open_rendezvous()
    seen: list[object] = []

    def fail_within() -> None:
        with process_group(rendezvous, rank=0, num_processes=1, store=store):
            seen.extend((dist.get_backend(), dist.get_world_size()))
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert seen == ["gloo", 1]
    assert not dist.is_initialized()
    assert collectives.num_processes() == 1
    assert {os.environ[f"{library}_SOCKET_IFNAME"] for library in ("GLOO", "NCCL")} <= {"lo", "lo0"}


def test_an_interface_that_the_user_has_set_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    (loopback,) = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", loopback)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "theirs")
    store, rendezvous = open_rendezvous()
    with process_group(rendezvous, rank=0, num_processes=1, host="192.0.2.99", store=store):
        assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == (loopback, "theirs")


def test_on_one_machine_the_interface_is_that_of_the_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("GLOO", "NCCL"):
        monkeypatch.setenv(f"{library}_SOCKET_IFNAME", "eth0")
    store, rendezvous = open_rendezvous()
    with process_group(rendezvous, rank=0, num_processes=1, store=store):
        names = {os.environ[f"{library}_SOCKET_IFNAME"] for library in ("GLOO", "NCCL")}
    assert names <= {"lo", "lo0"}


def test_a_process_that_waits_in_vain_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specvit.training.process_group.JOIN_TIMEOUT", timedelta(seconds=1))
    store, rendezvous = open_rendezvous()
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="here/1"), process_group(rendezvous, rank=0, num_processes=2, store=store):
        pytest.fail("the other process never came")
    assert time.monotonic() - started < 20
    assert not dist.is_initialized()


@pytest.mark.long
def test_a_process_that_finds_no_store_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specvit.training.process_group.JOIN_TIMEOUT", timedelta(seconds=1))
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        rendezvous = Rendezvous(LOOPBACK, free.getsockname()[1])
    with pytest.raises(RuntimeError), process_group(rendezvous, rank=1, num_processes=2):
        pytest.fail("there is no other process")
