"""What happens during a run, as values that are passed to each of ``callbacks=``.

A callback is called in the thread that called `anyfold.run_cv`, between two tasks of the caller's own work:
it should be quick. One that raises is named in a warning and not called again; the run goes on.

Examples
--------
>>> import anyfold as af
>>> from anyfold.events import TaskFinished
>>> from sklearn.datasets import load_iris
>>> from sklearn.dummy import DummyClassifier
>>> done = []
>>> def note(event):
...     if isinstance(event, TaskFinished):
...         done.append(str(event.outcome.key))
>>> X, y = load_iris(return_X_y=True)
>>> result = af.run_cv({"m": DummyClassifier()}, af.Folds(X, y, cv=2), callbacks=[note], backend="serial")
>>> done
["model 'm', fold 0", "model 'm', fold 1"]
"""

from anyfold._engine.events import Event, RunFinished, RunStarted, TaskFinished, TaskStarted

__all__ = ["Event", "RunFinished", "RunStarted", "TaskFinished", "TaskStarted"]
