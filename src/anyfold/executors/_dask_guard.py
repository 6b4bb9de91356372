"""Keeps other users of this machine off a local Dask cluster: imported in each of its processes.

Dask unpickles what it is sent, and on the loopback interface anybody may connect. On Linux the kernel tells
whose the other end of such a connection is; a stranger's is closed before anything is read from it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tornado import netutil, tcpserver

__all__: list[str] = []

LOOPBACK = "127.0.0.1"
CONNECTIONS = Path("/proc/net/tcp")
ESTABLISHED = "01"


class _Guarded(socket.socket):
    """A listening socket that accepts only processes of the same user."""

    def accept(self) -> tuple[socket.socket, Any]:
        while True:
            channel, address = super().accept()
            if _is_of_same_user(channel):
                return channel, address
            channel.close()


def _is_of_same_user(channel: socket.socket) -> bool:
    try:
        theirs, ours = _as_listed(channel.getpeername()), _as_listed(channel.getsockname())
    except OSError:
        return False  # it has gone already
    for line in CONNECTIONS.read_text().splitlines()[1:]:
        _, local, remote, state, _, _, _, uid, _, inode, *_ = line.split()
        if (local, remote, state) == (theirs, ours, ESTABLISHED):
            return int(uid) == os.getuid() and inode != "0"  # 0: of a process that has let go of it
    return False


def _as_listed(address: tuple[str, int]) -> str:
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"


def _guarding(bind_sockets: Callable[..., list[socket.socket]]) -> Callable[..., list[socket.socket]]:
    def bind(*args: Any, **kwargs: Any) -> list[socket.socket]:
        return [_guarded(listener) for listener in bind_sockets(*args, **kwargs)]

    return bind


def _guarded(listener: socket.socket) -> socket.socket:
    if listener.family != socket.AF_INET or listener.getsockname()[0] != LOOPBACK:
        return listener
    guarded = _Guarded(fileno=listener.detach())
    guarded.setblocking(False)
    return guarded


if CONNECTIONS.exists():
    netutil.bind_sockets = _guarding(netutil.bind_sockets)
    tcpserver.bind_sockets = netutil.bind_sockets  # type: ignore[attr-defined]  # that of web pages
