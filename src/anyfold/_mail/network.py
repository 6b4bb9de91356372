"""A mailbox that workers on other hosts can reach: the engine's own, behind a TCP socket.

worker                                              caller
------                                              ------
connect, token                     ────────────>    nothing is read before the token was right
started, done, started, done, …    ────────────>    delivered
(end of the unit: waits)           <────────────    how many outcomes have been delivered

Where outcomes are recorded the worker waits for each instead, until the engine says that it is.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterable
from typing import Any

from anyfold._mail.evidence import EvidenceAddress
from anyfold._mail.mailbox import Connection, SocketMailbox
from anyfold._mail.messages import RECEIPT, Done, NetworkAddress, Report

__all__ = ["NetworkMailbox", "SilentMailbox"]


class NetworkMailbox(SocketMailbox):
    """A mailbox for worker processes on any host that can reach an address of this one.

    Parameters
    ----------
    deliver : callable
        Is given each report.
    host : str
        The address of this host on the interface that workers can reach.
    """

    def __init__(self, deliver: Callable[[Report], None], host: str) -> None:
        self._host = host
        super().__init__(deliver)
        self.network_address = NetworkAddress(self.address.family, self.address.name, self.address.token)
        self.address = self.network_address

    def _listen(self, temp_dir: str | None) -> tuple[socket.socket, Any]:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, 0), family=family, backlog=128)
        return listener, listener.getsockname()

    def _accept(self) -> None:
        try:
            channel, _ = self._listener.accept()
        except OSError:
            return
        channel.setblocking(False)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._n_accepted += 1
        kind = Connection if self.address.records else _ReceiptedConnection
        self._register(kind(channel, self._n_accepted, self._token))


class SilentMailbox:
    """No mailbox, where workers cannot reach the caller: units have one leaf, and return its outcome.

    Parameters
    ----------
    folder : callable
        Names the folder where a worker may leave the stack in which a leaf hung, on its host.
    collect : callable
        Is given a token and the number of a unit; returns what `collect_evidence` finds on all hosts.
    """

    def __init__(self, folder: Callable[[], str], collect: Callable[[str, int], Iterable[str]]) -> None:
        self.address = EvidenceAddress(secrets.token_hex(16), folder)
        self._collect = collect

    def stack_of(self, unit: int) -> str | None:
        """Return the stack in which the worker of a lost unit hung, None if it ended otherwise."""
        return "".join(self._collect(self.address.token, unit)) or None

    def drain(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """There is nothing to close."""


class _ReceiptedConnection(Connection):
    """The reading end of one worker, which is told how many of its outcomes have been delivered."""

    _n_done = 0

    def read(self, deliver: Callable[[Report], None]) -> bool:
        before = self._n_done

        def count(report: Report) -> None:
            deliver(report)
            self._n_done += isinstance(report, Done)

        goes_on = super().read(count)
        if goes_on and self._n_done > before:
            try:
                self.channel.sendall(RECEIPT.pack(self._n_done))
            except OSError:
                self._deliver_end(deliver)  # the worker is gone, or has stopped reading
                return False
        return goes_on
