"""Examples run as they stand, and what they say about anyfold is so."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
ELSEWHERE = {"compare_models": "test_readme.py", "log_events": "test_events.py"}
"""Examples that other tests run and look at more closely."""
ARGUMENTS = {
    "same_numbers_everywhere": ["serial", "threads", "processes", "ray"],  # others start workers of their own
    "when_parallel_pays": ["--quick"],
}

PROGRAM = """
import contextlib, io, json, runpy, sys, traceback
import matplotlib.pyplot as plt
import ray
from distributed import Client

ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
with Client(n_workers=2, threads_per_worker=1, dashboard_address=":0"):
    for line in sys.stdin:
        sys.argv = json.loads(line)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                runpy.run_path(sys.argv[0], run_name="__main__")
            answer = [len(plt.get_fignums()), printed.getvalue(), ""]
        except BaseException:
            answer = [0, printed.getvalue(), traceback.format_exc()]
        plt.close("all")
        print(json.dumps(answer), flush=True)
"""
"""One process for all of them, in which Ray and Dask are started once, as a gallery is built."""


LAST_LINES = {
    "book_sales": r"book-2-2 .*",
    "same_numbers_everywhere": r"ray +the same table, to the last bit",
    "seven_sensors": r"have a look at: torque",
    "your_own": r"counting True",
}
N_CLAIMS = {"book_sales": 1, "seven_sensors": 5}
"""Lines that say that something is true."""


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    command = [sys.executable, "-W", "error", "-W", "default::ResourceWarning", "-c", PROGRAM]
    environment = {**os.environ, "MPLBACKEND": "agg", "ANYFOLD_BACKEND": "threads", "ANYFOLD_N_JOBS": "2"}
    environment["RAY_worker_niceness"] = "0"  # other tests run on this machine, too
    folder = tmp_path_factory.mktemp("examples")
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in ELSEWHERE)
)
def test_an_example_beside_one_ray_and_one_dask_tells_its_story_to_the_end(name, interpreter):
    command = [str(EXAMPLES / f"{name}.py"), *ARGUMENTS.get(name, [])]
    interpreter.stdin.write(f"{json.dumps(command)}\n")
    interpreter.stdin.flush()
    n_pictures, told, error = json.loads(interpreter.stdout.readline())
    assert not error, error
    assert n_pictures
    assert "False" not in told
    assert re.fullmatch(LAST_LINES.get(name, ".*"), told.splitlines()[-1])
    assert len(re.findall(r": True$", told, re.MULTILINE)) == N_CLAIMS.get(name, 0)


WITHOUT_MATPLOTLIB = """
import runpy, sys

sys.modules["matplotlib"] = None
for path in sys.argv[1:]:
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        print(end)
"""


def test_examples_that_draw_say_at_once_where_matplotlib_is_missing():
    draw = sorted(path for path in EXAMPLES.glob("*.py") if path.stem not in ELSEWHERE)
    command = [sys.executable, "-c", WITHOUT_MATPLOTLIB, *map(str, draw)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(told) == len(draw)
    assert all('pip install "anyfold[plot]"' in line for line in told)
