"""The worker's end of the mailbox: reporters, and the connections that a process keeps."""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from anyfold._mail.contact import WorkerInfo
from anyfold._mail.evidence import EvidenceAddress
from anyfold._mail.messages import (
    FRAME,
    RECEIPT,
    Done,
    LocalAddress,
    NetworkAddress,
    Report,
    SocketAddress,
    Started,
)
from anyfold._plan.task import TaskKey
from anyfold.errors import WorkerLostError

__all__ = [
    "Reporter",
    "SilentReporter",
    "close_reporters",
    "evidence_channel",
    "local_mailboxes",
    "reporter_for",
]

WORTH_KEEPING = 0.01
"""Seconds of work that shall not be lost: the time to record it is little against them."""

LARGE = 1 << 20
"""Bytes from which a message is sent by itself."""

CONNECT_SECONDS = 5.0
"""How long a worker tries to reach a mailbox on another host."""


class Reporter(Protocol):
    """What `run_unit` tells about its progress."""

    def started(self, unit: int, key: TaskKey) -> bool:
        """Return whether to go on: False when nobody waits for the leaf any more."""
        ...

    def done(self, unit: int, key: TaskKey, outcome: bytes) -> bool:
        """Return whether the outcome is on its way."""
        ...

    def flush(self) -> None: ...


class LocalReporter:
    """Delivers by a function call; used where worker and caller share a process."""

    def __init__(self, token: str, deliver: Callable[[Report], None]) -> None:
        self._token = token
        self._deliver = deliver
        self._worker = threading.get_ident()

    def started(self, unit: int, key: TaskKey) -> bool:
        self._deliver(Started(self._worker, unit, key))
        return self._token in local_mailboxes

    def done(self, unit: int, key: TaskKey, outcome: bytes) -> bool:
        self._deliver(Done(self._worker, unit, key, outcome))
        return True

    def flush(self) -> None:
        pass


class SilentReporter:
    """For a worker that cannot reach the caller: outcomes travel with the result of the unit."""

    def started(self, unit: int, key: TaskKey) -> bool:
        return True

    def done(self, unit: int, key: TaskKey, outcome: bytes) -> bool:
        return False

    def flush(self) -> None:
        pass


class SocketReporter:
    """Sends frames over a stream socket.

    ``done`` is held back until the next ``started`` or ``flush``, which follow at once, so that a
    leaf costs one system call. Where outcomes are recorded, ``done`` waits until this one is, unless it took
    next to no time: the caller may be killed at any moment, and nothing is lost but what is running.
    """

    def __init__(self, address: SocketAddress) -> None:
        self._records = address.records
        self._began = 0.0
        self._socket = _connect(address)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held = bytearray()
        self._alive = True
        self._send("contact", WorkerInfo.of_this_process())

    def started(self, unit: int, key: TaskKey) -> bool:
        self._send("started", unit, key)
        self._began = time.monotonic()
        return self.alive

    def done(self, unit: int, key: TaskKey, outcome: bytes) -> bool:
        with self._lock:
            waits = self._records and self._is_worth_keeping()
            if self.alive:
                self._hold("done", unit, key, outcome, waits)
            if waits or len(self._held) > LARGE:
                self._flush()
            if waits and self.alive and not self._receive(RECEIPT.size):
                self._alive = False
            return self.alive

    def flush(self) -> None:
        with self._lock:
            self._flush()

    @property
    def alive(self) -> bool:
        # A child forked by a model must not speak in its parent's name.
        return self._alive and self._pid == os.getpid()

    def close(self) -> None:
        self._alive = False
        self._socket.close()

    def _send(self, *message: Any) -> None:
        with self._lock:
            if self.alive:
                self._hold(*message)
                self._flush()

    def _is_worth_keeping(self) -> bool:
        return time.monotonic() - self._began > WORTH_KEEPING

    def _receive(self, n_bytes: int) -> bytes:
        data = b""
        while len(data) < n_bytes:
            try:
                more = self._socket.recv(n_bytes - len(data))
            except OSError:
                return b""
            if not more:
                return b""
            data += more
        return data

    def _hold(self, *message: Any) -> None:
        head, body = _frame(*message)
        self._held += head
        if len(body) > LARGE:
            self._flush()
            self._write(body)  # as it is: it may be a model as large as the memory allows
        else:
            self._held += body

    def _flush(self) -> None:
        if self._held and self.alive:
            self._write(self._held)
            self._held.clear()

    def _write(self, data: bytes | bytearray) -> None:
        if not self.alive:
            return
        try:
            self._socket.sendall(data)
        except OSError:
            self._alive = False  # the run is over; what was not delivered returns with the unit


class NetworkReporter(SocketReporter):
    """Sends frames to another host, and waits at the end of a unit until its outcomes have been delivered.

    Where outcomes are recorded, it waits for each.
    """

    def __init__(self, address: NetworkAddress) -> None:
        self._n_sent = 0
        self._n_delivered = 0
        super().__init__(address)

    def done(self, unit: int, key: TaskKey, outcome: bytes) -> bool:
        sent = super().done(unit, key, outcome)
        self._n_sent += sent and not self._records
        return sent

    def _is_worth_keeping(self) -> bool:
        return True

    def flush(self) -> None:
        """Wait for the receipts.

        Raises
        ------
        WorkerLostError
            If the connection ended before, so that outcomes may be lost and the unit must be run again.
        """
        super().flush()
        while self._n_delivered < self._n_sent:
            receipt = self._receive(RECEIPT.size)
            if not receipt:
                self._alive = False
                raise WorkerLostError("a worker has lost its connection to the caller")
            (self._n_delivered,) = RECEIPT.unpack(receipt)


def _frame(*message: Any) -> tuple[bytes, bytes]:
    body = pickle.dumps(message, protocol=5)
    return FRAME.pack(len(body)), body


def _connect(address: SocketAddress) -> socket.socket:
    channel = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if isinstance(address, NetworkAddress):
            channel.settimeout(CONNECT_SECONDS)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.connect(address.name)
        channel.settimeout(None)
        if hasattr(socket, "SO_PEERCRED") and address.family == socket.AF_UNIX:
            _, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.getuid():
                raise PermissionError("the mailbox belongs to another user")
        channel.sendall(FRAME.pack(len(address.token)) + address.token)
    except BaseException:
        channel.close()
        raise
    return channel


local_mailboxes: dict[str, Callable[[Report], None]] = {}
"""Mailboxes of this process by token."""

_open: OrderedDict[SocketAddress, SocketReporter] = OrderedDict()
_evidence: OrderedDict[SocketAddress, socket.socket] = OrderedDict()
_open_lock = threading.Lock()
_MOST_OPEN = 4  # runs that may share one worker without reconnecting at every unit


def close_reporters() -> None:
    """Hang up on all callers, at the end of a worker."""
    with _open_lock:
        while _open:
            _open.popitem()[1].close()
        while _evidence:
            _evidence.popitem()[1].close()


def _hang_up_in_child() -> None:
    # A child of a worker must not hold open what tells the caller of the worker's end.
    global _open_lock
    _open_lock = threading.Lock()
    for reporter in _open.values():
        reporter.close()
    for channel in _evidence.values():
        channel.close()
    _open.clear()
    _evidence.clear()


atexit.register(close_reporters)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hang_up_in_child)


def reporter_for(address: LocalAddress | SocketAddress | EvidenceAddress | None) -> Reporter:
    """Return the reporter for an address; a connection is kept for the units to come."""
    if address is None or isinstance(address, EvidenceAddress):
        return SilentReporter()
    if isinstance(address, LocalAddress):
        deliver = local_mailboxes.get(address.token)
        return SilentReporter() if deliver is None else LocalReporter(address.token, deliver)
    with _open_lock:
        reporter = _open.pop(address, None)
        if reporter is None or not reporter.alive:
            try:
                if isinstance(address, NetworkAddress):
                    reporter = NetworkReporter(address)
                else:
                    reporter = SocketReporter(address)
            except OSError:
                return SilentReporter()
        _open[address] = reporter
        while len(_open) > _MOST_OPEN:
            _open.popitem(last=False)[1].close()
        return reporter


def evidence_channel(address: SocketAddress) -> socket.socket | None:
    """Return a connection on which this process may leave a stack; None where it cannot connect."""
    with _open_lock:
        channel = _evidence.pop(address, None)
        if channel is None:
            try:
                channel = _connect(address)
                channel.sendall(b"".join(_frame("stack", os.getpid())))
            except OSError:
                return None
        _evidence[address] = channel
        while len(_evidence) > _MOST_OPEN:
            _evidence.popitem(last=False)[1].close()
        return channel
