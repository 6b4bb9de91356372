"""
Seven forests for seven sensors
===============================

Seven sensors watch a machine. From its twenty channels each sensor's reading is to be predicted, so that one
that drifts is noticed; and each has channels of its own that matter to it. That makes seven forests. Where
does parallel work belong: inside of each forest, over the trees, or outside, over the seven forests? Each
step is timed. Run it as it is::

    python examples/seven_sensors.py
"""

# %%
# The machine
# -----------
# Twenty channels, and seven readings of which each depends on four of them.

import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

import anyfold as af

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit('this example draws; pip install "anyfold[plot]", or ".[plot]" in a clone') from None

N_ROWS, N_CHANNELS, N_TREES = 2000, 20, 30
rng = np.random.default_rng(0)
channels = [f"channel-{number:02}" for number in range(N_CHANNELS)]
machine = pd.DataFrame(rng.normal(size=(N_ROWS, N_CHANNELS)), columns=channels)

features, readings = {}, {}
for sensor in ["pressure", "heat", "flow", "noise", "speed", "torque", "voltage"]:
    own = features[sensor] = sorted(rng.choice(channels, size=4, replace=False).tolist())
    first, second, third, fourth = (machine[channel] for channel in own)
    readings[sensor] = np.sin(first) * second + third**2 - fourth + rng.normal(0, 0.1, N_ROWS)

past, now = slice(0, 1500), slice(1500, None)
for sensor, own in features.items():
    print(f"{sensor:9} {', '.join(own)}")

# %%
# A stopwatch
# -----------
# All forests get the same seed, so that every way of fitting them gives the same forests.

seconds = {}


@contextmanager
def step(name):
    """Time what is done inside, and say so."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
    print(f"{seconds[name]:6.2f} s  {name}")


def forest(n_jobs):
    """Return a forest that uses so many threads."""
    return RandomForestRegressor(N_TREES, random_state=0, n_jobs=n_jobs)


data = {sensor: (machine.iloc[past][own], readings[sensor].iloc[past]) for sensor, own in features.items()}

# %%
# One after another
# -----------------
# A loop, as one would write it first; then with the forests' own threads, over their trees.

with step("loop, one thread"):
    in_a_loop = {sensor: forest(1).fit(X, y) for sensor, (X, y) in data.items()}

with step("loop, trees in threads (inner)"):
    inner = {sensor: forest(-1).fit(X, y) for sensor, (X, y) in data.items()}

# %%
# All seven at once
# -----------------
# One estimator and data for each name: `fit_models` fits a clone on each. Tasks have one thread unless they
# are given more, so that a forest's own ``n_jobs=-1`` does not start threads in every worker. The first call
# starts the workers, the next one finds them warm.

with step("fit_models, forests in processes (outer), workers started"):
    af.fit_models(forest(-1), data=data)

with step("fit_models, forests in processes (outer)"):
    outer = af.fit_models(forest(-1), data=data)

with step("fit_models, two threads in each (both)"):
    both = af.fit_models(forest(-1), data=data, inner_threads=2)

print(outer)

# %%
# What it comes to
# ----------------
# Threads share one interpreter, and what a tree does outside of its compiled part takes turns; processes take
# no turns, but data and forests travel. Both together ask for more threads than there are cores. Which one
# wins depends on the machine and on the size of the forests; what comes out does not.

X_new = machine.iloc[now]
for name, forests in {"loop": in_a_loop, "inner": inner, "outer": outer, "both": both}.items():
    for one in forests.values():
        one.set_params(n_jobs=1)  # several threads add up the trees in whatever order they come
    same = all(
        np.array_equal(forests[sensor].predict(X_new[own]), in_a_loop[sensor].predict(X_new[own]))
        for sensor, own in features.items()
    )
    print(f"{name}: the same forests as in the loop: {same}")

table = pd.Series(seconds, name="seconds").to_frame()
table["against the loop"] = (table["seconds"].iloc[0] / table["seconds"]).map("{:.1f} x".format)
print(table.round(2).to_string())

_, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
table["seconds"][::-1].plot.barh(ax=ax, color="#0072B2", xlabel="seconds for all seven forests")
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# Watching the machine
# --------------------
# The fitted models are a mapping: they predict together, each from its own channels, over one table that is
# sent once.

with step("predict_models"):
    expected = af.predict_models(outer, X_new, columns=features)

with step("seven calls of predict"):
    one_by_one = {sensor: outer[sensor].predict(X_new[own]) for sensor, own in features.items()}
print(f"the same numbers: {expected.equals(pd.DataFrame(one_by_one, index=X_new.index))}")

# %%
# One sensor drifts. The residuals of the last hundred readings show which one it is.

measured = pd.DataFrame({sensor: values.iloc[now] for sensor, values in readings.items()})
measured.loc[measured.index[-100:], "torque"] += 1.5
residuals = (measured - expected).tail(100).mean()

# sphinx_gallery_thumbnail_number = 2
_, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
for sensor, differences in (measured - expected).rolling(25).mean().items():
    color, width = ("#D55E00", 2) if sensor == residuals.abs().idxmax() else ("#aaaaaa", 1)
    ax.plot(differences, color=color, linewidth=width)
    ax.annotate(sensor, (differences.index[-1], differences.iloc[-1]), color=color, annotation_clip=False)
ax.set(xlabel="reading", ylabel="measured - predicted, mean of 25")
ax.spines[["top", "right"]].set_visible(False)
plt.show()

print(residuals.round(2).to_string())
print(f"have a look at: {residuals.abs().idxmax()}")
