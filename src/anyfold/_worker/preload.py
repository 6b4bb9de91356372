"""Imported by the fork server, once, so that the workers it forks need not import the same again."""

from __future__ import annotations

import sys

from anyfold._worker.boot import warm_imports

__all__: list[str] = []

# The fork server was started with ``python -c``, whose sys.path begins with the working directory. That
# of the caller may not: a file there must not stand in for an installed package.
if sys.path[:1] == [""]:
    del sys.path[0]
warm_imports()
