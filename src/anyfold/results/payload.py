"""How bytes that came back from a worker become objects again."""

from __future__ import annotations

from typing import Any

from anyfold.errors import UnreadableResultError

__all__ = ["load"]


def load(pickled: bytes, what: str, where: object) -> Any:
    """Unpickle what a task returned.

    Parameters
    ----------
    pickled : bytes
        As the worker sent it.
    what : str
        What it should be, for the message.
    where : object
        Names the task: its string has model and fold.

    Raises
    ------
    UnreadableResultError
        If it cannot be unpickled, caused by the original error.
    """
    from anyfold._data.serialize import loads

    try:
        return loads(pickled)
    except Exception as error:
        raise UnreadableResultError(
            f"the {what} of {where} cannot be unpickled ({type(error).__name__}: {error}); make what it "
            "needs importable here, in the versions that the worker had. Scores need none of it: to_frame()"
        ) from error
