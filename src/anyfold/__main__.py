"""The command line: ``anyfold COMMAND``, also ``python -m anyfold COMMAND``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from anyfold import __version__
from anyfold._commands import bench, check, doctor, journal

__all__ = ["main"]

COMMANDS = (doctor, check, bench, journal)
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
        0 if all is well, 1 if the command found an error, 2 if an argument cannot be used; arguments that
        cannot be understood end the process with the same. 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="anyfold",
        description="Cross-validation on any execution backend: tools around it.",
        epilog="anyfold COMMAND --help says more of each; python -m anyfold does the same as anyfold.",
    )
    parser.add_argument("--version", action="version", version=f"anyfold {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(commands)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # nobody reads any more, as in: anyfold doctor | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
