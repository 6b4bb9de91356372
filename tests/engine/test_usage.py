"""How many runs use an executor, which a fork must be able to ask whatever the parent was at."""

import os
import signal

from anyfold._engine import usage


def test_a_fork_does_not_wait_for_what_the_parent_was_doing():
    with usage._lock:  # as another thread might hold it in the moment of the fork
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with usage.in_use(object()):
                os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
