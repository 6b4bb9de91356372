"""What workers report arrives, whatever becomes of them."""

import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import psutil
import pytest

from anyfold._mail.mailbox import LocalMailbox, SocketMailbox
from anyfold._mail.messages import Closed, Contact, Done, Started
from anyfold._mail.reporter import SilentReporter, close_reporters, reporter_for
from anyfold._plan.task import TaskKey


@pytest.fixture
def inbox():
    return queue.SimpleQueue()


@pytest.fixture
def mailbox(inbox):
    mailbox = SocketMailbox(inbox.put)
    yield mailbox
    close_reporters()
    mailbox.close()


def reporting(address, body):
    """A process that reports as a worker does."""
    script = """
        import os, pickle, signal, sys
        from anyfold._plan.task import TaskKey
        from anyfold._mail.reporter import reporter_for
        reporter = reporter_for(pickle.load(sys.stdin.buffer))
        key = TaskKey("m", 0, 3)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script) + textwrap.dedent(body)], stdin=subprocess.PIPE
    )
    process.stdin.write(pickle.dumps(address))
    process.stdin.close()
    return process


def all_of(inbox):
    events = []
    while not inbox.empty():
        events.append(inbox.get())
    return events


def test_what_was_sent_is_there_after_drain(mailbox, inbox):
    worker = reporting(
        mailbox.address,
        """
        reporter.started(7, key)
        reporter.done(7, key, b"outcome")
        reporter.flush()
        """,
    )
    assert worker.wait() == 0
    mailbox.drain()
    contact, started, done, closed = all_of(inbox)
    assert isinstance(contact, Contact)
    assert contact.info.pid == worker.pid
    assert started == Started(contact.worker, 7, TaskKey("m", 0, 3))
    assert done == Done(contact.worker, 7, TaskKey("m", 0, 3), b"outcome")
    assert closed == Closed(contact.worker)


def test_what_a_killed_worker_had_sent_is_kept(mailbox, inbox):
    worker = reporting(
        mailbox.address,
        """
        reporter.started(7, key)
        reporter.done(7, key, bytes(3_000_000))
        reporter.started(7, TaskKey("m", 0, 4))
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert worker.wait() == -signal.SIGKILL
    mailbox.drain()
    events = all_of(inbox)
    assert [type(event) for event in events] == [Contact, Started, Done, Started, Closed]
    assert len(events[2].outcome) == 3_000_000
    assert events[3].key.fold == 4


def test_workers_are_closed_in_the_order_in_which_they_died(mailbox, inbox):
    body = """
        reporter.started(1, key)
        print("ready", flush=True)
        signal.pause()
    """
    workers = []
    for _ in range(3):
        worker = reporting(mailbox.address, body)
        workers.append(worker)
        event = inbox.get()
        while not isinstance(event, Started):
            event = inbox.get()
    order = [workers[1], workers[2], workers[0]]
    for worker in order:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    mailbox.drain()
    closed = [event.worker for event in all_of(inbox) if isinstance(event, Closed)]
    assert closed == [2, 3, 1]


def test_a_stranger_without_the_token_is_not_listened_to(mailbox, inbox):
    class Bomb:
        def __reduce__(self):
            return (os.kill, (os.getpid(), signal.SIGKILL))

    with socket.socket(mailbox.address.family, socket.SOCK_STREAM) as stranger:
        stranger.connect(mailbox.address.name)
        bomb = pickle.dumps(Bomb())
        stranger.sendall(len(bomb).to_bytes(8, "big") + bomb)
        assert stranger.recv(1) == b""  # hung up on
    mailbox.drain()
    assert all_of(inbox) == []


def test_a_stranger_who_announces_a_flood_is_hung_up_on(mailbox):
    with socket.socket(mailbox.address.family, socket.SOCK_STREAM) as stranger:
        stranger.connect(mailbox.address.name)
        stranger.sendall((1 << 31).to_bytes(8, "big"))
        assert stranger.recv(1) == b""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_hung_up_on_even_with_the_token(mailbox, inbox):
    worker = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, pickle, socket, sys\n"
            "family, name, token = pickle.load(sys.stdin.buffer)\n"
            "os.setuid(65534)\n"
            "channel = socket.socket(family, socket.SOCK_STREAM)\n"
            "channel.connect(name)\n"
            "try:\n"
            "    channel.sendall(len(token).to_bytes(8, 'big') + token)\n"
            "    sys.exit(0 if channel.recv(1) == b'' else 1)\n"
            "except OSError:\n"
            "    sys.exit(0)\n",
        ],
        input=pickle.dumps((mailbox.address.family, mailbox.address.name, mailbox.address.token)),
        check=False,
    )
    assert worker.returncode == 0
    mailbox.drain()
    assert all_of(inbox) == []


def test_drain_returns_when_the_mailbox_is_closed(inbox):
    mailbox = SocketMailbox(inbox.put)
    mailbox.close()
    mailbox.drain()
    mailbox.close()


def test_a_closed_mailbox_leaves_nothing(inbox):
    process = psutil.Process()
    SocketMailbox(inbox.put).close()
    before = (process.num_fds(), threading.active_count())
    for _ in range(50):
        SocketMailbox(inbox.put).close()
    assert (process.num_fds(), threading.active_count()) == before


def test_a_worker_whose_run_is_over_is_told_not_to_go_on(inbox):
    mailbox = SocketMailbox(inbox.put)
    reporter = reporter_for(mailbox.address)
    assert reporter.started(1, TaskKey("m", 0, 0))
    mailbox.close()
    answers = [reporter.started(1, TaskKey("m", 0, fold)) for fold in range(3)]
    assert answers[-1] is False
    close_reporters()
    assert reporter.done(1, TaskKey("m", 0, 1), b"") is False


def test_a_worker_that_cannot_connect_goes_on_silently(inbox):
    mailbox = SocketMailbox(inbox.put)
    address = mailbox.address
    mailbox.close()
    reporter = reporter_for(address)
    assert isinstance(reporter, SilentReporter)
    assert reporter.started(1, TaskKey("m", 0, 0)) is True
    assert reporter.done(1, TaskKey("m", 0, 0), b"") is False


def test_a_child_that_a_model_forks_does_not_speak_for_its_parent(mailbox, inbox):
    worker = reporting(
        mailbox.address,
        """
        reporter.started(7, key)
        child = os.fork()
        if child == 0:
            reporter.done(7, key, b"from the child")
            reporter.flush()
            os._exit(0)
        os.waitpid(child, 0)
        """,
    )
    assert worker.wait() == 0
    mailbox.drain()
    assert not any(isinstance(event, Done) for event in all_of(inbox))


def test_in_one_process_reports_are_delivered_by_a_call(inbox):
    mailbox = LocalMailbox(inbox.put)
    reporter = reporter_for(mailbox.address)
    assert reporter.started(1, TaskKey("m", 0, 0))
    assert reporter.done(1, TaskKey("m", 0, 0), b"x")
    mailbox.close()
    assert [type(event) for event in all_of(inbox)] == [Started, Done]
    assert reporter.started(1, TaskKey("m", 0, 1)) is False
    assert isinstance(reporter_for(mailbox.address), SilentReporter)


def test_a_worker_goes_on_when_its_work_is_on_record(mailbox, inbox):
    mailbox.expect_records()
    worker = reporting(
        mailbox.address,
        """
        import time
        reporter.started(7, key)
        reporter.done(7, key, b"quick")
        reporter.started(7, key)
        time.sleep(0.02)  # the work
        reporter.done(7, key, b"slow")
        reporter.started(8, key)
        """,
    )
    events = [inbox.get() for _ in range(5)]
    assert [type(event) for event in events] == [Contact, Started, Done, Started, Done]
    assert [event.waits for event in events[2::2]] == [False, True]
    mailbox.drain()
    assert inbox.empty()
    mailbox.recorded([events[4].worker])
    assert inbox.get().unit == 8
    assert worker.wait() == 0


def test_a_worker_that_waits_for_a_record_learns_of_the_end_of_its_caller(mailbox, inbox):
    mailbox.expect_records()
    worker = reporting(
        mailbox.address,
        """
        import time
        reporter.started(7, key)
        time.sleep(0.02)  # the work
        assert not reporter.done(7, key, b"slow")
        assert not reporter.started(8, key)
        """,
    )
    while not isinstance(inbox.get(), Done):
        pass
    mailbox.close()
    assert worker.wait() == 0
