"""What a worker process of anyfold's own pool does: one task at a time, until its pipe ends.

Both directions carry frames, an eight-byte length and that many bytes. The worker's first frame is empty
when it is ready and says what went wrong when it is not; then each frame in is a task, each frame out its
answer.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import traceback

from anyfold._worker.boot import WorkerSetup, prepare
from anyfold._worker.call import call

__all__ = ["CHUNK", "HEADER", "serve"]

HEADER = struct.Struct("!Q")
CHUNK = 1 << 16


def serve(channel: socket.socket, setup: WorkerSetup) -> None:
    """Get ready, say so, and answer tasks until the caller closes the channel."""
    os.set_inheritable(channel.fileno(), False)
    try:
        try:
            prepare(setup)
        except BaseException:
            _send(channel, traceback.format_exc().encode())
            sys.exit(1)
        _send(channel, b"")
        while (payload := _receive(channel)) is not None:
            _send(channel, call(payload))
            del payload
    except ConnectionError:
        pass  # the caller has let this worker go


def _send(channel: socket.socket, body: bytes) -> None:
    header = HEADER.pack(len(body))
    if len(body) <= CHUNK:
        channel.sendall(header + body)
    else:
        channel.sendall(header)
        channel.sendall(body)


def _receive(channel: socket.socket) -> bytes | bytearray | None:
    """Return the next task; None where the caller closed the channel."""
    # A second task is sent only after the answer to the first: what arrives belongs to one frame.
    data = channel.recv(CHUNK)
    while 0 < len(data) < HEADER.size:
        more = channel.recv(CHUNK)
        data = data + more if more else b""
    if not data:
        return None
    (size,) = HEADER.unpack_from(data)
    if len(data) == HEADER.size + size:
        return data[HEADER.size :]
    body = bytearray(size)
    filled = len(data) - HEADER.size
    body[:filled] = data[HEADER.size :]
    with memoryview(body) as view:
        while filled < size:
            received = channel.recv_into(view[filled:])
            if not received:
                return None
            filled += received
    return body
