"""Imported by the fork server, once, so that the workers it forks need not import the same again."""

from anyfold._worker.boot import warm_imports

__all__: list[str] = []

warm_imports()
