"""Where a bar is drawn: on a terminal by rich, in a notebook as HTML, elsewhere as lines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from anyfold._engine.progress import State

__all__ = ["Surface", "surface_for"]


class Surface(Protocol):
    """Where progress is shown."""

    def open(self, state: State) -> None: ...
    def update(self) -> None: ...
    def hide(self) -> None: ...
    def close(self) -> None: ...


def surface_for(*, asked_for: bool, in_processes: bool) -> Surface | None:
    """Return where a bar can be seen, if anywhere."""
    if not asked_for and os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return None
    if _in_notebook():
        return _Notebook()
    if sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return _Terminal(in_processes)
    return _Lines() if asked_for and sys.stderr is not None else None


def _in_notebook() -> bool:
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class _Terminal:
    """One line at the bottom of a terminal.

    What is printed meanwhile goes above it, where tasks run in processes: elsewhere what tasks print would
    lose its way. And output that goes into a file must stay there.
    """

    def __init__(self, in_processes: bool) -> None:
        self._redirects = in_processes and sys.stdout is not None and sys.stdout.isatty()

    def open(self, state: State) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Column, Table
        from rich.text import Text

        console = Console(file=sys.stderr, markup=False, emoji=False)

        def line() -> Table:
            cells = Table.grid(Column(), Column(), Column(no_wrap=True, overflow="ellipsis"), padding=(0, 1))
            total = None if state.n_tasks is None else state.n_tasks or 1
            bar = ProgressBar(total, state.n_done, width=24 if console.width >= 70 else 8)
            cells.add_row("anyfold", bar, Text(str(state)))
            return cells

        self._live = Live(
            get_renderable=line,
            console=console,
            refresh_per_second=4,
            redirect_stdout=self._redirects,
            redirect_stderr=self._redirects,
        )
        self._live.start()

    def update(self) -> None:
        pass  # it looks for itself, and the time left goes on meanwhile

    def hide(self) -> None:
        self._live.transient = True
        self._live.stop()

    def close(self) -> None:
        self._live.stop()


@dataclass(slots=True)
class _Notebook:
    """A bar below the cell."""

    _handle: Any = None
    _state: Any = None
    _drawn: float = field(default=0.0)

    def open(self, state: State) -> None:
        from IPython.display import display

        self._state = state
        self._drawn = time.monotonic()
        if self._handle is None:
            self._handle = display(self._picture(), raw=True, display_id=True)

    def update(self) -> None:
        if time.monotonic() - self._drawn >= 0.25:
            self._drawn = time.monotonic()
            self._handle.update(self._picture(), raw=True)

    def hide(self) -> None:
        pass  # it stays below its cell, and does nothing there

    def close(self) -> None:
        self._handle.update(self._picture(), raw=True)

    def _picture(self) -> Mapping[str, str]:
        state = self._state
        known = "" if state.n_tasks is None else f' value="{state.n_done}" max="{state.n_tasks or 1}"'
        bar = f"<progress{known}></progress>"
        return {"text/plain": f"anyfold: {state}", "text/html": f"<div>{bar} {escape(str(state))}</div>"}


@dataclass(slots=True)
class _Lines:
    """A line for each tenth, for logs."""

    _state: Any = None
    _tenth: int = 0

    def open(self, state: State) -> None:
        self._state = state

    def update(self) -> None:
        if self._state.n_tasks is None:
            return
        tenth = 10 * self._state.n_done // (self._state.n_tasks or 1)
        if self._tenth < tenth < 10:
            self._tenth = tenth
            self._write()

    def hide(self) -> None:
        pass  # lines are not taken back

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        sys.stderr.write(f"anyfold: {self._state}\n")
        sys.stderr.flush()
