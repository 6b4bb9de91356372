"""Executors that break one promise each; the contract must catch every one of them."""

import ctypes
import os
import subprocess
import tempfile
import threading
import time
import warnings
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import replace
from typing import ClassVar

import numpy as np

from anyfold._data.serialize import dumps, loads
from anyfold._engine.sharing import Direct
from anyfold._worker.execute import Job
from anyfold.errors import WorkerLostError
from anyfold.executors.multiprocessing import MultiprocessingExecutor
from anyfold.executors.serial import SerialExecutor
from anyfold.executors.threads import ThreadsExecutor

STARTED = []
"""Processes that are left on purpose; the contract ends them."""


def is_unit(args):
    return bool(args) and isinstance(args[0], Direct) and isinstance(args[0].get(), Job)


class SwapsTwoFolds(ThreadsExecutor):
    """Says of the outcomes of the first two folds that they are each other's."""

    def submit(self, fn, /, *args, **kwargs):
        if not is_unit(args):
            return super().submit(fn, *args, **kwargs)
        job, unit, leaves, _ = args
        return super().submit(_swapped, fn, job, unit, leaves)


def _swapped(fn, job, unit, leaves):
    def other(key):
        return replace(key, fold=1 - key.fold) if key.fold in (0, 1) else key

    _, unsent = fn(job, unit, tuple(replace(leaf, key=other(leaf.key)) for leaf in leaves), None)
    return 0, tuple((other(key), dumps(replace(loads(data), key=other(key)))) for key, data in unsent)


class ChangesOutcomes(ThreadsExecutor):
    """Passes outcomes on in another form than that in which the worker gave them."""

    def submit(self, fn, /, *args, **kwargs):
        if not is_unit(args):
            return super().submit(fn, *args, **kwargs)
        return super().submit(self._changed, fn, *args[:3])

    def _changed(self, fn, job, unit, leaves):
        _, unsent = fn(job, unit, leaves, None)
        return 0, tuple((key, dumps(self.change(loads(data)))) for key, data in unsent)

    def change(self, outcome):
        raise NotImplementedError


class DropsWarnings(ChangesOutcomes):
    """Loses the warnings of tasks."""

    def change(self, outcome):
        return replace(outcome, warnings=())


class DropsLogs(ChangesOutcomes):
    """Loses what tasks log."""

    def change(self, outcome):
        return replace(outcome, logs=())


class DropsOutput(ChangesOutcomes):
    """Loses what tasks print."""

    def change(self, outcome):
        return replace(outcome, output=())


class RoundsScores(ChangesOutcomes):
    """Loses the last bits of the numbers."""

    def change(self, outcome):
        if outcome.value is None:
            return outcome
        test = {name: float(np.float32(score)) for name, score in outcome.value.test.items()}
        return replace(outcome, value=replace(outcome.value, test=test))


class SwallowsFailures(ChangesOutcomes):
    """Calls failed fits successful."""

    def change(self, outcome):
        return replace(outcome, failure=None)


class ChangesTheJob(ThreadsExecutor):
    """Runs tasks of another job than that which was given."""

    n_submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        if is_unit(args):
            type(self).n_submitted += 1
            args = (Direct(self.change(args[0].get())), *args[1:])
        return super().submit(fn, *args, **kwargs)

    def change(self, job):
        raise NotImplementedError


class ReseedsByPosition(ChangesTheJob):
    """Seeds tasks by the order in which they were submitted."""

    def change(self, job):
        return reseeded(job, job.root_seed + self.n_submitted)


class IgnoresTheRoot(ChangesTheJob):
    """Seeds all runs alike."""

    def change(self, job):
        return reseeded(job, 0)


def reseeded(job, root):
    return replace(job, root_seed=root, work=replace(job.work, root_seed=root))


class ForgetsTheConfiguration(ChangesTheJob):
    """Runs tasks without the configuration of scikit-learn."""

    def change(self, job):
        return replace(job, sklearn_config={})


class ReturnsInOrderOfCompletion(ThreadsExecutor):
    """Gives whatever ends first to whoever asked first."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        self._waiting = []

    def submit(self, fn, /, *args, **kwargs):
        outer = Future()
        self._waiting.append(outer)
        inner = super().submit(fn, *args, **kwargs)
        inner.add_done_callback(lambda done: follow(done, self._waiting.pop(0)))
        return outer


def error_of(future):
    return None if future.cancelled() else future.exception()


def follow(inner, outer):
    if inner.cancelled():
        outer.cancel()
    if not outer.set_running_or_notify_cancel():
        return
    if inner.exception() is not None:
        outer.set_exception(inner.exception())
    else:
        outer.set_result(inner.result())


class DropsATask(ThreadsExecutor):
    """Says of every seventh task that it is done, and does not do it."""

    n_submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.n_submitted += 1
        if self.n_submitted % 7 == 0:
            future = Future()
            future.set_result(None)
            return future
        return super().submit(fn, *args, **kwargs)


class ForgetsATask(ThreadsExecutor):
    """Never says anything of every seventh task."""

    n_submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.n_submitted += 1
        if self.n_submitted % 7 == 0:
            return Future()
        return super().submit(fn, *args, **kwargs)


class Wraps(ThreadsExecutor):
    """Does something around each task."""

    def submit(self, fn, /, *args, **kwargs):
        return super().submit(self.around, fn, *args, **kwargs)

    def around(self, fn, /, *args, **kwargs):
        raise NotImplementedError


class RunsOneTwice(Wraps):
    """Runs every task twice."""

    def around(self, fn, /, *args, **kwargs):
        fn(*args, **kwargs)
        return fn(*args, **kwargs)


class LosesKeywords(Wraps):
    """Passes no keyword arguments on."""

    def around(self, fn, /, *args, **kwargs):
        return fn(*args)


class SwallowsExceptions(Wraps):
    """Returns None where a task raised."""

    def around(self, fn, /, *args, **kwargs):
        try:
            return fn(*args, **kwargs)
        except BaseException:
            return None


class ChangesExceptions(Wraps):
    """Raises RuntimeError whatever a task raised."""

    def around(self, fn, /, *args, **kwargs):
        try:
            return fn(*args, **kwargs)
        except BaseException as error:
            raise RuntimeError(str(error)) from error


class LosesTheTraceback(ThreadsExecutor):
    """Raises what a task raised, and does not say where."""

    def submit(self, fn, /, *args, **kwargs):
        outer = Future()
        inner = super().submit(fn, *args, **kwargs)

        def bare(done):
            if done.exception() is not None:
                done.exception().__traceback__ = None
            follow(done, outer)

        inner.add_done_callback(bare)
        return outer


class MutatesSharedData(Wraps):
    """Writes into the memory of the data after each unit."""

    def around(self, fn, /, *args, **kwargs):
        result = fn(*args, **kwargs)
        if is_unit(args):
            X = args[0].get().work.data.get().X
            if isinstance(X, np.ndarray) and X.dtype == float:
                ctypes.memset(X.ctypes.data, 1, 8)
        return result


class LetsLibrariesMultiply(Wraps):
    """Lets BLAS, OpenMP and models use eight threads."""

    def around(self, fn, /, *args, **kwargs):
        if not is_unit(args):
            return fn(*args, **kwargs)
        job = args[0].get()
        return fn(Direct(replace(job, inner_threads=8)), *args[1:], **kwargs)


class LetsThreadsMultiply(ThreadsExecutor):
    """Has four times as many threads as it says."""

    def __init__(self, max_workers):
        super().__init__(4 * max_workers)
        self.max_workers = max_workers


class RunsOneByOne(ThreadsExecutor):
    """Has one thread, and says that it has more."""

    def __init__(self, max_workers):
        super().__init__(1)
        self.max_workers = max_workers


class IgnoresCancel(ThreadsExecutor):
    """Says that tasks are cancelled, and runs them."""

    def submit(self, fn, /, *args, **kwargs):
        outer = Future()
        inner = super().submit(fn, *args, **kwargs)
        inner.add_done_callback(lambda done: follow(done, outer))
        return outer


class NeverCancels(ThreadsExecutor):
    """Cancels nothing, also at shutdown."""

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        future.cancel = lambda: False
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        super().shutdown(wait)


class ShutdownDoesNotWait(ThreadsExecutor):
    """Returns from shutdown before tasks are done."""

    def submit(self, fn, /, *args, **kwargs):
        def slowly():
            time.sleep(0.02)
            return fn(*args, **kwargs)

        return super().submit(slowly)

    def shutdown(self, wait=True, *, cancel_futures=False):
        super().shutdown(wait=False, cancel_futures=cancel_futures)


class NeverCloses(ThreadsExecutor):
    """Takes tasks after shutdown."""

    def submit(self, fn, /, *args, **kwargs):
        if self._shutdown:
            future = Future()
            future.set_result(fn(*args, **kwargs))
            return future
        return super().submit(fn, *args, **kwargs)


class ClosesOnce(ThreadsExecutor):
    """Cannot bear to be shut down twice."""

    def shutdown(self, wait=True, *, cancel_futures=False):
        if self._shutdown:
            raise RuntimeError("was shut down before")
        super().shutdown(wait, cancel_futures=cancel_futures)


class CallsBackTwice(ThreadsExecutor):
    """Calls every callback twice."""

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        add = future.add_done_callback
        future.add_done_callback = lambda callback: (add(callback), add(callback))
        return future


class LocksWhileCallingBack(ThreadsExecutor):
    """Calls back while it holds the lock that submitting needs."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        self._mine = threading.Lock()

    def submit(self, fn, /, *args, **kwargs):
        if not self._mine.acquire(timeout=20):
            raise RuntimeError("deadlock")
        outer = Future()
        try:
            inner = super().submit(fn, *args, **kwargs)
        finally:
            self._mine.release()

        def pass_on(done):
            with self._mine:
                follow(done, outer)

        inner.add_done_callback(pass_on)
        return outer


class ReturnsFuturesOfItsOwn(ThreadsExecutor):
    """Returns something that only looks like a future."""

    def submit(self, fn, /, *args, **kwargs):
        return _Promise(super().submit(fn, *args, **kwargs))


class _Promise:
    def __init__(self, future):
        self._future = future

    def __getattr__(self, name):
        return getattr(self._future, name)


class LiesAboutIsolation(ThreadsExecutor):
    """Says that it has processes, and has threads."""

    isolation = "process"


class SharesItsWorkers(ThreadsExecutor):
    """Closes all executors of its kind together."""

    _made: ClassVar = []

    def __init__(self, max_workers):
        super().__init__(max_workers)
        self._made.append(self)

    def shutdown(self, wait=True, *, cancel_futures=False):
        for executor in self._made:
            super(SharesItsWorkers, executor).shutdown(wait, cancel_futures=cancel_futures)


class DeclaresWhatItLacks(ThreadsExecutor):
    """Declares a capability without its method."""

    capabilities = frozenset({"stop_running"})


class DeclaresWhatIsUnknown(ThreadsExecutor):
    """Declares a capability that does not exist."""

    capabilities = frozenset({"flying"})


class _Stays:
    """Shares an object without a copy, and so that anybody can write to it."""

    def __init__(self, value):
        self._value = value

    def get(self):
        return self._value

    def release(self):
        pass

    def matches(self, obj):
        return obj is self._value


class SharesWhatCanBeWritten(ThreadsExecutor):
    """Shares objects that anybody can write to."""

    capabilities = frozenset({"share"})

    def share(self, obj):
        return _Stays(obj)

    def submit_shared(self, fn, /, *args, **kwargs):
        return self.submit(lambda: _Stays(fn(*args, **kwargs)))


class SendsDataWithEveryTask(MultiprocessingExecutor):
    """Calls sharing what is a copy in every task."""

    capabilities = MultiprocessingExecutor.capabilities | {"share"}

    def share(self, obj):
        return _Stays(obj)

    def submit_shared(self, fn, /, *args, **kwargs):
        raise NotImplementedError


class NoticesNoChange(SharesWhatCanBeWritten):
    """Keeps a copy of what it shares, whatever becomes of the original."""

    def share(self, obj):
        kept = _Stays(loads(dumps(obj)))
        kept.matches = lambda other: True
        return kept


class ConvertsData(SharesWhatCanBeWritten):
    """Shares floats in single precision."""

    def share(self, obj):
        if isinstance(getattr(obj, "X", None), np.ndarray) and obj.X.dtype == float:
            obj = replace(obj, X=obj.X.astype(np.float32))
        return _Stays(obj)


class ChangesTheCallersGenerator(ThreadsExecutor):
    """Seeds the caller's global generator."""

    def submit(self, fn, /, *args, **kwargs):
        np.random.seed(0)
        return super().submit(fn, *args, **kwargs)


class ChangesTheCallersEnvironment(ThreadsExecutor):
    """Sets variables of the caller's environment."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        os.environ["OMP_NUM_THREADS"] = str(max_workers + len(os.environ.get("OMP_NUM_THREADS", "")))


class ChangesTheCallersFilters(ThreadsExecutor):
    """Adds to the caller's warning filters."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        warnings.filterwarnings("ignore", message=f"of my own {time.time()}")


def _seeded(fn, args, kwargs):
    np.random.seed(0)
    return fn(*args, **kwargs)


class StartsAllWorkersAlike(MultiprocessingExecutor):
    """Every task finds the same global generator."""

    def submit(self, fn, /, *args, **kwargs):
        return super().submit(_seeded, fn, args, kwargs)


class PicklesByName(ProcessPoolExecutor):
    """Uses the pickle of the standard library."""

    isolation = "process"
    capabilities = frozenset()
    max_workers = 2


class RetriesErrors(Wraps):
    """Tries again what a model did wrong."""

    def around(self, fn, /, *args, **kwargs):
        result = fn(*args, **kwargs)
        if is_unit(args):
            fn(args[0], args[1], args[2], None)
        return result


class LeaksAProcess(ThreadsExecutor):
    """Leaves a process after shutdown."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        STARTED.append(subprocess.Popen(["sleep", "60"]))


class OutlivesItsCaller(ThreadsExecutor):
    """Has a helper that only ``shutdown`` ends."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        self._helper = subprocess.Popen(["sleep", "60"], start_new_session=True)

    def shutdown(self, wait=True, *, cancel_futures=False):
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._helper.kill()
        self._helper.wait()


class LeaksAFile(ThreadsExecutor):
    """Leaves a temporary file."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        os.close(tempfile.mkstemp(prefix="leaked-")[0])


class LeaksADescriptor(ThreadsExecutor):
    """Leaves a descriptor open."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        os.open(os.devnull, os.O_RDONLY)


class HoldsUpTheExit(ThreadsExecutor):
    """Must be shut down for the interpreter to end."""

    def __init__(self, max_workers):
        super().__init__(max_workers)
        self._ended = threading.Event()
        threading.Thread(target=self._ended.wait).start()

    def shutdown(self, wait=True, *, cancel_futures=False):
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._ended.set()


class SwallowsInterrupts(SerialExecutor):
    """Makes Ctrl-C an error of whatever runs."""

    def submit(self, fn, /, *args, **kwargs):
        try:
            return super().submit(fn, *args, **kwargs)
        except KeyboardInterrupt as error:
            future = Future()
            future.set_exception(RuntimeError(repr(error)))
            return future


class HangsOnADeadWorker(MultiprocessingExecutor):
    """Never says anything of a task whose worker has died."""

    def submit(self, fn, /, *args, **kwargs):
        outer = Future()
        inner = super().submit(fn, *args, **kwargs)

        def pass_on(done):
            if not isinstance(error_of(done), WorkerLostError):
                follow(done, outer)

        inner.add_done_callback(pass_on)
        return outer


class BreaksWithoutSayingSo(MultiprocessingExecutor):
    """Declares healing, and reports a loss as a pool that has broken."""

    def submit(self, fn, /, *args, **kwargs):
        outer = Future()
        inner = super().submit(fn, *args, **kwargs)

        def pass_on(done):
            if isinstance(error_of(done), WorkerLostError):
                outer.set_exception(BrokenExecutor("broken"))
            else:
                follow(done, outer)

        inner.add_done_callback(pass_on)
        return outer


class RetriesByItself(MultiprocessingExecutor):
    """Runs a task again whose worker has died, and tells nobody."""

    def submit(self, fn, /, *args, **kwargs):
        outer = Future()

        def attempt(left):
            inner = super(RetriesByItself, self).submit(fn, *args, **kwargs)
            inner.add_done_callback(lambda done: judge(done, left))

        def judge(done, left):
            if isinstance(error_of(done), WorkerLostError) and left:
                attempt(left - 1)
            else:
                follow(done, outer)

        attempt(2)
        return outer


def _unwatched(fn, args, kwargs):
    import faulthandler

    faulthandler.dump_traceback_later = lambda *args, **kwargs: None
    return fn(*args, **kwargs)


class IgnoresTimeouts(MultiprocessingExecutor):
    """Switches the watchdog of its workers off."""

    def submit(self, fn, /, *args, **kwargs):
        return super().submit(_unwatched, fn, args, kwargs)


class StopsNothing(MultiprocessingExecutor):
    """Declares stop_running, which does nothing."""

    def stop_running(self):
        pass


class LeavesAnOrphan(MultiprocessingExecutor):
    """Forgets a helper when a worker is lost."""

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)

        def look(done):
            if isinstance(error_of(done), WorkerLostError):
                STARTED.append(subprocess.Popen(["sleep", "60"]))

        future.add_done_callback(look)
        return future
