"""
When is parallel worth it?
==========================

Starting a worker takes time, and so does sending it a task. This script measures both on your machine:
the same function over one to a million items, and over tasks of nothing to two seconds, serially and on
each backend that is installed.

``python examples/when_parallel_pays.py --quick`` leaves out what takes long.
"""

import sys
import time
from functools import partial

import pandas as pd

import anyfold as af

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit('this example draws; pip install "anyfold[plot]", or ".[plot]" in a clone') from None

N_WORKERS = 2
QUICK = "--quick" in sys.argv


def square(number, seconds=0.0):
    """Return the square of a number, after as many seconds of work."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass  # a loop in Python, which holds the GIL: the worst case for threads
    return number * number


# %%
# What is measured
# ----------------
# On each backend first one call per worker, which has to start the workers; then, on warm workers, one to a
# million items of next to no work; then two tasks, one for each, that take longer and longer.

backends = [backend.name for backend in af.available_backends() if backend.available]
sizes = [10**exponent for exponent in range(7)]
lengths = [0.0001, 0.001, 0.01, 0.1, 0.5, 2.0]
if QUICK:
    backends, sizes, lengths = ["serial", "threads", "multiprocessing"], sizes[:4], lengths[:4]


def measured(function, items, executor):
    """Return the seconds that a backend takes, and see to it that the answer is right."""
    started = time.perf_counter()
    values = af.parallel_map(function, items, backend=executor)
    seconds = time.perf_counter() - started
    assert values == [item * item for item in items]
    return seconds


start = pd.Series(dtype=float)
by_size, by_length = pd.DataFrame(index=sizes), pd.DataFrame(index=lengths)
for name in backends:
    started = time.perf_counter()
    with af.get_executor(name, n_jobs=N_WORKERS) as executor:
        measured(square, range(N_WORKERS), executor)
        start[name] = time.perf_counter() - started
        by_size[name] = [measured(square, range(n), executor) for n in sizes]
        by_length[name] = [
            measured(partial(square, seconds=length), range(N_WORKERS), executor) for length in lengths
        ]

# %%
# What a start costs
# ------------------

_, ax = plt.subplots(figsize=(7, 0.8 + 0.35 * len(backends)), layout="constrained")
start.sort_values(ascending=False).plot.barh(ax=ax, color="#0072B2")
ax.set_xlabel("seconds until the first answers are there")
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# From one item to a million
# --------------------------
# The function itself takes next to no time, so that this is what anyfold costs. Tiny calls are grouped:
# what would be milliseconds for the way of each call to a worker and back is microseconds.

COLORS = dict(zip(backends, plt.colormaps["tab10"].colors, strict=False))


def draw(table, xlabel, ylabel):
    """Draw one line per backend."""
    _, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name in table:
        style = {"color": "black", "linewidth": 2.5} if name == "serial" else {"color": COLORS[name]}
        ax.plot(table.index, table[name], marker="o", markersize=4, label=name, **style)
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax


draw(by_size, "items of next to no work", "seconds for all items")
plt.show()

print("microseconds per item, where there are most")
print((by_size.iloc[-1] / sizes[-1] * 1e6).round(1).sort_values().to_string())

# %%
# Where there is nothing to do there is nothing to win. A plain ``map`` would be faster than any of these.

# %%
# From nothing to two seconds
# ---------------------------
# Now the two tasks: how many times faster than serial each backend is. Above one, parallel is worth it;
# more than two is not to be had from two workers. Threads win nothing here, since this work holds the GIL.

# sphinx_gallery_thumbnail_number = 3
ax = draw(by_length.rdiv(by_length["serial"], axis=0), "seconds per task", "times faster than serial")
ax.axhline(1, color="#999999", linewidth=0.8)
ax.axhline(N_WORKERS, color="#999999", linewidth=0.8, linestyle=":")
ax.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
plt.show()

# %%
# The shortest task measured from which on a backend with warm workers was faster than serial, on the
# machine that built this page.

is_faster = by_length.lt(by_length["serial"], axis=0)
since = {name: is_faster.index[is_faster[name][::-1].cummin()[::-1]] for name in backends if name != "serial"}
print(
    pd.Series(
        {name: f"{found[0]:g} s" if len(found) else "none" for name, found in since.items()}
    ).to_string()
)
