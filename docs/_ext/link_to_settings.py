"""Links to the table of all settings."""

from typing import Any

from sphinx.application import Sphinx

PAGE = "settings"


def link_to_table(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Lead from every function that takes settings to the table."""
    if any("inner_threads" in line and " : " in line for line in lines):
        lines += ["", f".. seealso:: All settings stand in one table: :doc:`/{PAGE}`."]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", link_to_table, priority=900)  # after numpydoc
    return {"parallel_read_safe": True}
