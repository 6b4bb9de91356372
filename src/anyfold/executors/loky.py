"""The ``loky`` backend: a pool of loky's, ours alone, made to heal."""

from __future__ import annotations

import os
from typing import Any

import loky
from loky.backend import resource_tracker

from anyfold._worker.boot import capture_setup, prepare
from anyfold.executors._healing import HealingPool
from anyfold.executors._options import check_max_workers
from anyfold.executors._start import interrupts_blocked

__all__ = ["LokyExecutor"]

# loky replaces a worker whose memory has grown by 300 MB, with a warning. Workers keep the slices of the
# current fold on purpose.
_NO_RECYCLING = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}


class LokyExecutor(HealingPool):
    """Processes of this machine, managed by loky.

    The pool is not the reusable one that joblib and others share. Its workers do not leave when idle, need
    no main guard, and are replaced after one was lost: all tasks that the pool had been given then raise
    `WorkerLostError`.

    Parameters
    ----------
    max_workers : int
        How many processes there may be.

    Attributes
    ----------
    max_workers : int
    """

    def __init__(self, max_workers: int) -> None:
        super().__init__(check_max_workers(max_workers))
        # Workers are started by whichever thread submits, which need not live as long as they do.
        self._setup = capture_setup(kill_with_parent_thread=False)

    def _build(self) -> Any:
        return _Pool(
            self.max_workers,
            timeout=None,
            context=loky.backend.get_context("loky"),  # the one that does not import the main module
            initializer=prepare,
            initargs=(self._setup,),
            env={name: value for name, value in _NO_RECYCLING.items() if name not in os.environ},
        )


class _Pool(loky.ProcessPoolExecutor):  # type: ignore[misc]
    def _adjust_process_count(self) -> None:
        with interrupts_blocked(resource_tracker):
            super()._adjust_process_count()
