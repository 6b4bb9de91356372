"""Ctrl-C gives control back within two seconds, with what had finished; a second one at once."""

import os
import signal
import textwrap
import time

import pytest
from tests.backends import PROCESS_BACKENDS

SCRIPT = """
    import signal
    from anyfold.events import RunFinished

    class Noted(Quick):
        def __init__(self, name):
            self.name = name
        def fit(self, X, y):
            (MARKS / f"fitted-{self.name}-{X.sum()}").touch()
            return super().fit(X, y)

    class Interrupted(Quick):
        def fit(self, X, y):
            raise KeyboardInterrupt  # as one whose worker is told of Ctrl-C as well

    class Cleaning:
        def __call__(self, event):
            if isinstance(event, RunFinished):
                (MARKS / "cleaning").touch()
                time.sleep(3600)

    def interrupted(mark, **settings):
        models = {"a": Noted("a"), "b": Noted("b"), "told": Interrupted(), "hangs": Hangs(mark)}
        try:
            af.run_cv(models, af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=2, **settings)
        except KeyboardInterrupt as interrupt:
            print(mark, time.time(), flush=True)
            (MARKS / f"back-{mark}").touch()
            return interrupt.result

    signal.siginterrupt(signal.SIGINT, False)  # as polars leaves it
    result = interrupted("once", journal="journal.sqlite")
    assert result.interrupted
    fitted = len(list(MARKS.glob("fitted-*")))  # all of it was done: both workers have gone on, and hang
    scores = [score for name in "ab" for score in result[name]["test_score"].tolist()]
    assert fitted and scores.count(0.5) == fitted and len(result.missing) == 8 - fitted, (fitted, result)
    assert not result.failures
    again = {name: Noted(name) for name in "ab"}
    again = af.run_cv(again, af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=2, journal="journal.sqlite")
    assert len(again.journal.taken) == fitted, (fitted, again)

    interrupted("twice", callbacks=[Cleaning()])
    terminated = {"a": Noted("a"), "hangs": Hangs("terminated")}
    try:
        af.run_cv(terminated, af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=2, journal="journal.sqlite")
    except KeyboardInterrupt as stop:
        print(stop.result["a"]["test_score"].tolist(), stop.result.missing, flush=True)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        raise
"""


@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_ctrl_c_and_sigterm_give_control_and_finished_results_back(backend, start_driver):
    driver = start_driver(backend, SCRIPT)
    driver.wait_for("once-*", 2)  # both workers hang
    assert driver.hear_interrupts() == [driver.pid]
    pressed = [time.time()]
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    driver.wait_for("twice-*", 2)
    driver.process.send_signal(signal.SIGINT)
    driver.wait_for("cleaning")
    pressed.append(time.time())
    driver.process.send_signal(signal.SIGINT)
    driver.wait_for("terminated-*", 2)
    driver.process.terminate()
    code, out, err = driver.end()
    assert (code, err) == (128 + signal.SIGTERM, "")
    once, twice, terminated = out.splitlines()
    assert terminated == "[0.5, 0.5] (('hangs', 0), ('hangs', 1))"
    assert float(once.split()[1]) - pressed[0] < 2
    assert float(twice.split()[1]) - pressed[1] < 2


STARTING = """
    try:
        af.run_cv(Quick(), af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=2)
    except KeyboardInterrupt as interrupt:
        print(time.time(), interrupt.result.missing)
"""

TERMINATED = """
    import os, signal, sys

    class Forks(Quick):
        def fit(self, X, y):
            if child := os.fork():
                self.ended_by_ = os.waitpid(child, 0)[1]
                return self
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        def score(self, X, y):
            return self.ended_by_

    forked = af.run_cv(Forks(), af.Folds(X, y, cv=2), backend=BACKEND)
    print(forked["forks"]["test_score"].tolist(), flush=True)
    try:
        af.run_cv({"quick": Quick(), "hangs": Hangs()}, af.Folds(X, y, cv=2), backend=BACKEND)
    except KeyboardInterrupt as stop:
        print(stop.result["quick"]["test_score"].tolist(), flush=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    af.run_cv(Hangs("own"), af.Folds(X, y, cv=2), backend=BACKEND)
"""


def test_sigterm_is_heard_on_serial_and_left_to_forks_and_to_programs_that_handle_it(start_driver):
    driver = start_driver("serial", TERMINATED)
    for mark in ("hangs-*", "own-*"):
        driver.wait_for(mark)
        driver.process.terminate()
    assert driver.end() == (7, "[15, 15]\n[0.5, nan]\n", "")


SLOW_TO_START = """
    import os, sys, time
    from pathlib import Path

    marks = Path(os.environ["MARKS"])
    if any("forkserver" in argument for argument in sys.orig_argv):
        (marks / "starting").touch()
        while not (marks / "go").exists():
            time.sleep(0.01)
"""


def test_ctrl_c_does_not_wait_for_workers_that_are_slow_to_start(start_driver, tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(SLOW_TO_START))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    driver = start_driver("multiprocessing", STARTING)
    driver.wait_for("starting")
    pressed = time.time()
    driver.process.send_signal(signal.SIGINT)
    back, _, missing = driver.process.stdout.readline().partition(" ")
    (driver.marks / "go").touch()
    assert driver.end() == (0, "", "")
    assert float(back) - pressed < 2
    assert missing == "(('quick', 0), ('quick', 1))\n"


AUTO = """
    class Here(Quick):
        def __init__(self, caller=None):
            self.caller = caller
        def fit(self, X, y):
            if os.getpid() != self.caller:
                return super().fit(X, y)
            (MARKS / "here").touch()
            while True:
                time.sleep(3600)

    try:
        models = {"here": Here(os.getpid()), "hangs": Hangs()}
        af.run_cv(models, af.Folds(X, y, cv=3), backend=BACKEND, n_jobs=2)
    except KeyboardInterrupt as interrupt:
        result = interrupt.result
        print(time.time(), result["here"]["test_score"].tolist(), result.missing, flush=True)
"""


def test_ctrl_c_reaches_the_caller_and_its_workers_where_both_are_at_work(start_driver):
    driver = start_driver("auto", AUTO)
    driver.wait_for("here")
    driver.wait_for("hangs-*", 2)
    pressed = time.time()
    driver.process.send_signal(signal.SIGINT)
    code, out, err = driver.end()
    assert (code, err) == (0, "")
    back, _, told = out.partition(" ")
    assert float(back) - pressed < 2
    assert told == "[nan, 0.5, nan] (('here', 0), ('here', 2), ('hangs', 0), ('hangs', 1), ('hangs', 2))\n"
