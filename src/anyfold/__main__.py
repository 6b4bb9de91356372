"""The command line: ``anyfold COMMAND``, also ``python -m anyfold COMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from anyfold import __version__
from anyfold._commands import check, doctor, journal

__all__ = ["main"]

COMMANDS = (doctor, check, journal)
"""Modules that import what they need only when they run, so that ``--help`` answers at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv : sequence of str or None, default=None
        What stands after ``anyfold``; None takes it from the command line.

    Returns
    -------
    int
        0 if all is well, 1 if the command found an error. Arguments that cannot be understood end the
        process with status 2.
    """
    parser = argparse.ArgumentParser(
        prog="anyfold", description="Cross-validation on any execution backend: tools around it."
    )
    parser.add_argument("--version", action="version", version=f"anyfold {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(commands)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
