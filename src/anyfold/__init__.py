"""Cross-validation on any execution backend, with the same numbers bit for bit."""

from anyfold._version import __version__

__all__ = ["__version__"]
