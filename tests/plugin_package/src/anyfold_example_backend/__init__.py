"""A backend of a third party: a pool of loky's, as it is."""

import os
import select
import signal
import threading

from loky.backend import get_context
from loky.process_executor import ProcessPoolExecutor

__all__ = ["ExampleExecutor"]


class ExampleExecutor(ProcessPoolExecutor):
    """Processes that end with their caller.

    It declares nothing, so that anyfold takes it for what every PEP 3148 executor is: tasks are pickled, run
    in processes, and a lost worker ends the run.
    """

    def __init__(self, max_workers):
        super().__init__(
            max_workers, context=get_context("loky"), initializer=_begin, initargs=(os.getpid(),)
        )


def _begin(caller):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    threading.Thread(target=_end_with, args=(os.pidfd_open(caller),), daemon=True).start()


def _end_with(caller):
    poll = select.poll()
    poll.register(caller, select.POLLIN)
    poll.poll()
    os._exit(1)
