"""The table of all settings, and links to it, from the one place where settings are written down."""

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from anyfold._settings.fields import ProgramSettings, Settings, settings_of, variable_of

PAGE = "settings"


class SettingsTable(SphinxDirective):
    """``settings-table``: one row for each setting, with an anchor ``setting-NAME``."""

    def run(self) -> list[nodes.Node]:
        parent = nodes.container(classes=["settings-table"])
        self.state.nested_parse(StringList([*_table()], source="settings-table"), 0, parent)
        return [parent]


def _table() -> Iterator[str]:
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 35 65", "")
    yield from ("   * - Setting", "     - What it does")
    arguments = settings_of(Settings)
    for name, (_, setting) in settings_of(ProgramSettings).items():
        variable = variable_of(name)
        yield f"   * - .. _setting-{name.replace('_', '-')}:"
        yield from ("", f"       **{name}**", "", f"       default: ``{setting.default!r}``")
        if variable:
            yield from ("", f"       ``{variable}``")
        sentences = [setting.help, f"Takes {setting.takes}."]
        if setting.none is not None:
            sentences.append(f"None: {setting.none}.")
        if name not in arguments:
            sentences.append("It concerns the whole program and is no argument of a call.")
        if variable is None:
            sentences.append("It has no variable.")
        yield f"     - {' '.join(sentences)}"


def link_to_table(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Lead from every function that takes settings to the table."""
    if any("inner_threads" in line and " : " in line for line in lines):
        lines += ["", f".. seealso:: All settings stand in one table: :doc:`/{PAGE}`."]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings-table", SettingsTable)
    app.connect("autodoc-process-docstring", link_to_table, priority=900)  # after numpydoc
    return {"parallel_read_safe": True}
