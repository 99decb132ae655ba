"""How the processes that train one trial find each other, and part again.

The main one opens a store, a small server of torch's, and whoever started the processes tells the others where it is.
Then they are one group (``specvit.training.collectives``) while the context ``process_group`` is open in each. On one
machine all of it listens to 127.0.0.1 alone.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from specvit.device import select_device

LOOPBACK = "127.0.0.1"
"""The address to meet at where all processes are on one machine."""

JOIN_TIMEOUT = timedelta(minutes=5)
"""Longest wait for the others to come."""

SILENCE_TIMEOUT = timedelta(minutes=30)
"""Longest wait in a collective; the main process probes between two of them."""

_SIOCGIFADDR = 0x8915
"""Linux's request for the IPv4 address of a network interface."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the main process waits for the others."""

    host: str
    port: int


def open_rendezvous(host: str = LOOPBACK) -> tuple[TCPStore, Rendezvous]:
    """Open the store that processes meet at, on a free port; it is closed when it is let go.

    Args:
        host: Address of this machine to listen at, and at no other.

    Returns:
        The store, for ``process_group`` in this process, and where it is, for the other processes.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # A store's own socket would listen at every address, and its port could be taken between choosing and opening it.
    listening = socket.create_server((host, 0), family=family)
    port = listening.getsockname()[1]
    store = TCPStore(
        host, port, is_master=True, wait_for_workers=False, timeout=JOIN_TIMEOUT, master_listen_fd=listening.detach()
    )
    return store, Rendezvous(host, port)


@contextmanager
def process_group(
    rendezvous: Rendezvous, *, rank: int, num_processes: int, host: str = LOOPBACK, store: TCPStore | None = None
) -> Iterator[None]:
    """Make this process one of those that train a trial together, until the context ends.

    Args:
        rendezvous: Where they meet.
        rank: Number of this process, from 0, the main one.
        num_processes: How many they are.
        host: This process's own address, at which the others reach it.
        store: What the main process opened.

    Raises:
        RuntimeError: If the others do not come, from here; if one is lost, or silent for long, from collectives.
    """
    interface = _interface_of(host)
    if interface is not None:
        # Both libraries would choose by the machine's name, and listen there. What the user has set stands, but for
        # processes on one machine: nobody else need reach them.
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            if host == LOOPBACK or variable not in os.environ:
                os.environ[variable] = interface
    if store is None:
        store = TCPStore(rendezvous.host, rendezvous.port, is_master=False, timeout=JOIN_TIMEOUT)
    # The group would wait for the last to come as long as for a message.
    store.set(f"here/{rank}", "")
    store.wait([f"here/{number}" for number in range(num_processes)], JOIN_TIMEOUT)
    on_gpu = select_device().is_cuda
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=num_processes,
        timeout=SILENCE_TIMEOUT,
        device_id=torch.device("cuda", torch.cuda.current_device()) if on_gpu else None,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _interface_of(host: str) -> str | None:
    """Return the name of the network interface that has an IPv4 address; None if that cannot be told."""
    if not sys.platform.startswith("linux"):
        return "lo0" if host == LOOPBACK else None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has no address
            if socket.inet_ntoa(answer[20:24]) == host:
                return name
    return None
