"""Ctrl-C gives control back within two seconds, with what had finished; a second one at once."""

import os
import signal
import time

import pytest
from tests.backends import PROCESS_BACKENDS

SCRIPT = """
    import signal
    from anyfold.events import RunFinished

    class Interrupted(Quick):
        def fit(self, X, y):
            raise KeyboardInterrupt  # as one whose worker is told of Ctrl-C as well

    class Cleaning:
        def __call__(self, event):
            if isinstance(event, RunFinished):
                (MARKS / "cleaning").touch()
                time.sleep(3600)

    def interrupted(mark, **settings):
        models = {"a": Quick(), "b": Quick(), "told": Interrupted(), "hangs": Hangs(mark)}
        try:
            af.run_cv(models, af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=2, **settings)
        except KeyboardInterrupt as interrupt:
            print(mark, time.time(), flush=True)
            (MARKS / f"back-{mark}").touch()
            return interrupt.result

    signal.siginterrupt(signal.SIGINT, False)  # as polars leaves it
    result = interrupted("once", journal="journal.sqlite")
    assert result.interrupted
    assert result["a"]["test_score"].tolist() == result["b"]["test_score"].tolist() == [0.5, 0.5], result
    assert result.missing == tuple((name, fold) for name in ("told", "hangs") for fold in range(2)), result
    assert not result.failures
    again = af.run_cv(Quick(), af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=2, journal="journal.sqlite")
    print(len(again.journal.taken))

    interrupted("twice", callbacks=[Cleaning()])
    interrupted("terminated", journal="journal.sqlite")
"""


@pytest.mark.parametrize("backend", PROCESS_BACKENDS)
def test_ctrl_c_and_sigterm_give_control_and_finished_results_back(backend, start_driver):
    driver = start_driver(backend, SCRIPT)
    driver.wait_for("once-*", 2)  # both workers hang: all quick tasks, which come first, are done
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
    assert (code, err) == (-signal.SIGTERM, "")
    once, n_taken, twice = out.splitlines()
    assert float(once.split()[1]) - pressed[0] < 2
    assert float(twice.split()[1]) - pressed[1] < 2
    assert n_taken == "2"


NOTEBOOK = (
    """
    import asyncio, builtins, signal, types

    CELLS = [
        """
    + repr("""
class Hangs(Hangs):
    pass

class Quick(Quick):
    pass

def prepare(X):
    return X

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
models = {"quick": Quick(), "hangs": make_pipeline(FunctionTransformer(prepare), Hangs())}
""")
    + """,
        "af.run_cv(models, af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=2)",
        "result = af.run_cv({'quick': models['quick']}, af.Folds(X, y, cv=2), backend=BACKEND, n_jobs=2)",
    ]

    # As a kernel does: cells run in a module of their own that stands in for __main__, on the main thread
    # inside an event loop, and only then does Ctrl-C raise KeyboardInterrupt.
    notebook = types.ModuleType("__main__")
    notebook.__dict__.update({k: v for k, v in globals().items() if not k.startswith("__")})
    sys.modules["__main__"] = notebook

    async def kernel():
        for number, cell in enumerate(CELLS):
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                exec(compile(cell, f"<ipython-input-{number}>", "exec"), notebook.__dict__)
            except KeyboardInterrupt as interrupt:
                print(time.time(), interrupt.result.missing, interrupt.result["quick"]["test_score"])
            finally:
                signal.signal(signal.SIGINT, before)
            await asyncio.sleep(0)
        print(notebook.result["quick"]["test_score"])

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(kernel())
"""
)


@pytest.mark.parametrize("backend", ["multiprocessing", "processes"])
def test_a_notebook_gets_its_kernel_back(backend, start_driver):
    driver = start_driver(backend, NOTEBOOK)
    driver.wait_for("hangs-*", 2)
    pressed = time.time()
    os.killpg(driver.pid, signal.SIGINT)  # so does a notebook server
    code, out, err = driver.end()
    assert (code, err) == (0, "")
    back, rest = out.split(maxsplit=1)
    assert float(back) - pressed < 2
    assert rest == "(('hangs', 0), ('hangs', 1)) [0.5 0.5]\n[0.5 0.5]\n"
