"""Where the reports of workers arrive: a socket on this host, or a function call.

    worker ──┐
    worker ──┼──> socket ──> mailbox thread ──deliver──> the engine's inbox
    worker ──┘                    ▲
                                  └── drain(): "read all there is, then tell me"

On Linux the socket lives in the abstract namespace, so that it has no file that could outlive the
caller; elsewhere it lies in a private folder. Only processes of the same user that know the token of the run
are listened to, and nothing is unpickled before that is known.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import pickle
import secrets
import selectors
import shutil
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from anyfold._mail.messages import (
    FRAME,
    HELLO_LIMIT,
    RECEIPT,
    Closed,
    Contact,
    Done,
    LocalAddress,
    Report,
    SocketAddress,
    Stack,
    Started,
)
from anyfold._mail.reporter import local_mailboxes

__all__ = ["LocalMailbox", "SocketMailbox"]

Deliver = Callable[[Report], None]

_READS_A_TURN = 16  # 4 MB of one worker before the others have their turn
_MOST_PASSES = 1000  # a drain ends even where workers never stop talking


class LocalMailbox:
    """A mailbox for workers in this very process."""

    def __init__(self, deliver: Deliver) -> None:
        self.address = LocalAddress(secrets.token_hex(8))
        local_mailboxes[self.address.token] = deliver

    def drain(self) -> None:
        """Return at once: a report is delivered before the worker goes on."""

    def close(self) -> None:
        """Stop listening."""
        local_mailboxes.pop(self.address.token, None)


class SocketMailbox:
    """A mailbox for worker processes on this host."""

    def __init__(self, deliver: Deliver, temp_dir: str | None = None) -> None:
        self._deliver = deliver
        self._token = secrets.token_bytes(16)
        self._folder: str | None = None
        self._listener, name = self._listen(temp_dir)
        self.address = SocketAddress(self._listener.family, name, self._token)
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for channel in (self._listener, self._wake_reader):
            channel.setblocking(False)
            self._selector.register(channel, selectors.EVENT_READ)
        self._n_accepted = 0
        self._channels: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        self._waiting: list[threading.Event] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="anyfold-mailbox", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Return when everything that was sent before this call has been delivered."""
        done = threading.Event()
        with self._lock:
            if self._closing:
                return
            self._waiting.append(done)
        self._wake()
        done.wait()

    def expect_records(self) -> None:
        """Tell workers to wait until their outcomes are on record; before any has the address."""
        self.address = replace(self.address, records=True)

    def recorded(self, workers: Iterable[int]) -> None:
        """Let workers go on that have waited for this."""
        for worker in workers:
            with contextlib.suppress(KeyError, OSError):  # it is gone
                self._channels[worker].send(RECEIPT.pack(1))

    def close(self) -> None:
        """Stop listening; leave no thread, descriptor or file."""
        with self._lock:
            self._closing = True
        self._wake()
        self._thread.join()

    def _listen(self, temp_dir: str | None) -> tuple[socket.socket, Any]:
        if not hasattr(socket, "AF_UNIX"):
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            return listener, listener.getsockname()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        name: str | bytes
        if sys.platform == "linux":
            name = f"\0anyfold-{os.getpid()}-{secrets.token_hex(8)}".encode()
        else:
            self._folder = tempfile.mkdtemp(prefix="anyfold-", dir=temp_dir)
            name = str(Path(self._folder) / "mailbox")
        listener.bind(name)
        listener.listen(128)
        return listener, name

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._closing:
                self._pass(None)
                with self._lock:
                    waiting, self._waiting = self._waiting, []
                if waiting:
                    # What was sent before drain() was called is in the kernel's buffers by now;
                    # a worker may also have connected only to say it.
                    for _ in range(_MOST_PASSES):
                        if not self._pass(0):
                            break
                    for done in waiting:
                        done.set()
        finally:
            with self._lock:
                self._closing = True
                waiting, self._waiting = self._waiting, []
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._wake_writer.close()
            self._selector.close()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            for done in waiting:
                done.set()

    def _pass(self, timeout: float | None) -> bool:
        """Serve what is ready, in the order in which it became ready; return whether there was any."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._wake_reader:
                with contextlib.suppress(BlockingIOError):
                    self._wake_reader.recv(4096)
            else:
                connection: Connection = key.data
                if not connection.read(self._deliver):
                    self._selector.unregister(key.fileobj)
                    self._channels.pop(connection.worker, None)
                    connection.channel.close()
        return bool(ready)

    def _accept(self) -> None:
        try:
            channel, _ = self._listener.accept()
        except OSError:
            return
        if not _same_user(channel):
            channel.close()
            return
        channel.setblocking(False)
        self._n_accepted += 1
        self._register(Connection(channel, self._n_accepted, self._token))

    def _register(self, connection: Connection) -> None:
        self._channels[connection.worker] = connection.channel
        self._selector.register(connection.channel, selectors.EVENT_READ, connection)


class Connection:
    """The reading end of one worker."""

    def __init__(self, channel: socket.socket, worker: int, token: bytes) -> None:
        self.channel = channel
        self.worker = worker
        self._token = token
        self._buffer = bytearray()
        self._known = False
        self._leaves_stack: int | None = None

    def read(self, deliver: Deliver) -> bool:
        """Deliver what has arrived; return False when the worker is gone or is none of ours.

        Read on to the end of what a dead worker has left, so that workers are reported as closed
        in the order in which they died.
        """
        for _ in range(_READS_A_TURN):
            try:
                data = self.channel.recv(1 << 18)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            self._buffer += data
            if not data or not self._deliver_frames(deliver):
                self._deliver_end(deliver)
                return False
        return True

    def _deliver_end(self, deliver: Deliver) -> None:
        if self._leaves_stack is not None:
            if self._buffer:
                deliver(Stack(self._leaves_stack, self._buffer.decode(errors="replace")))
        elif self._known:
            deliver(Closed(self.worker))

    def _deliver_frames(self, deliver: Deliver) -> bool:
        start = 0
        view = memoryview(self._buffer)
        try:
            while len(view) - start >= FRAME.size and self._leaves_stack is None:
                (length,) = FRAME.unpack_from(view, start)
                if not self._known and length > HELLO_LIMIT:
                    return False
                body = start + FRAME.size
                if len(view) - body < length:
                    break
                if not self._known:
                    if not self._is_ours(bytes(view[body : body + length])):
                        return False
                    self._known = True
                else:
                    message = pickle.loads(view[body : body + length])
                    if message[0] == "stack":
                        _, self._leaves_stack = message  # what follows is text
                    else:
                        deliver(_report(self.worker, message))
                start = body + length
        finally:
            view.release()
        del self._buffer[:start]
        return True

    def _is_ours(self, hello: bytes) -> bool:
        return hmac.compare_digest(hello, self._token)


def _report(worker: int, message: tuple[Any, ...]) -> Report:
    match message:
        case ("started", unit, key):
            return Started(worker, unit, key)
        case ("done", unit, key, outcome, waits):
            return Done(worker, unit, key, outcome, waits)
        case ("contact", info):
            return Contact(worker, info)
    raise AssertionError(f"a worker reported {message!r}")


def _same_user(channel: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED") or channel.family != socket.AF_UNIX:
        return True
    _, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(uid == os.getuid())
