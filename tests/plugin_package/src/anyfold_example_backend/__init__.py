"""A backend of a third party: the pool of the standard library, as it is."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor

__all__ = ["ExampleExecutor"]


class ExampleExecutor(ProcessPoolExecutor):
    """Forked processes that end with their caller.

    It declares nothing, so that anyfold takes it for what every PEP 3148 executor is: tasks are pickled, run
    in processes, and a lost worker ends the run.
    """

    start_method = "fork"

    def __init__(self, max_workers):
        context = multiprocessing.get_context("fork")
        super().__init__(max_workers, context, initializer=_begin)
        self.max_workers = max_workers


def _begin():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    threading.Thread(target=_end_with_caller, daemon=True).start()


def _end_with_caller():
    multiprocessing.parent_process().join()
    os._exit(1)
