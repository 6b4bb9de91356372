"""How a worker tells the caller what it does while it does it.

    worker                                            caller
    ------                                            ------
    connect, token, who I am           ─────────────> Contact(worker, info)
    unit 7: leaf a starts              ─────────────> Started(worker, unit 7, a)
    unit 7: leaf a is done, b starts   ─────────────> Done(worker, unit 7, a, outcome), Started(…, b)
    (worker dies)                      ─────EOF─────> Closed(worker)
    on a connection of its own:
    the stack in which a leaf hung     ─────EOF─────> Stack(pid, text)

What a worker has sent before it died is still read: the kernel keeps it. In one process the same
events are delivered by a function call.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from anyfold._mail.contact import WorkerInfo
from anyfold._plan.task import TaskKey

__all__ = [
    "FRAME",
    "HELLO_LIMIT",
    "RECEIPT",
    "Closed",
    "Contact",
    "Done",
    "LocalAddress",
    "NetworkAddress",
    "Report",
    "SocketAddress",
    "Stack",
    "Started",
]

FRAME = struct.Struct("!Q")
RECEIPT = struct.Struct("!Q")
"""How many outcomes of a worker have been delivered by now; 1 where the one it waits for is on record."""

HELLO_LIMIT = 64
"""Bytes that are read of somebody who has not shown the token of the run."""


@dataclass(frozen=True, slots=True)
class Contact:
    """A worker has connected for the first time in this run."""

    worker: int
    info: WorkerInfo


@dataclass(frozen=True, slots=True)
class Started:
    """A worker is about to run a leaf."""

    worker: int
    unit: int
    key: TaskKey


@dataclass(frozen=True, slots=True)
class Done:
    """A worker has finished a leaf; the outcome is still pickled."""

    worker: int
    unit: int
    key: TaskKey
    outcome: bytes
    waits: bool = False
    """Whether the worker goes on only when this is on record."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection to a worker has ended, as it does when the worker dies."""

    worker: int


@dataclass(frozen=True, slots=True)
class Stack:
    """What a worker left that was ended because its leaf ran too long."""

    pid: int
    text: str


Report = Contact | Started | Done | Closed | Stack


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """A mailbox in this very process."""

    token: str


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A mailbox behind a socket on this host."""

    family: int
    name: str | bytes | tuple[str, int]
    token: bytes
    records: bool = False
    """Whether outcomes are recorded, so that a worker may wait until its last one is."""


@dataclass(frozen=True, slots=True)
class NetworkAddress(SocketAddress):
    """A mailbox on another host, which says how many outcomes it has delivered.

    Between hosts the result of a unit may overtake what was sent on another connection; so a worker waits
    for the receipt of its outcomes before it returns the result.
    """
