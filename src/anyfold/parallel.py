"""`parallel_map` and `parallel_starmap`: any function over any items, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Literal, TypeVar, Unpack, get_args, overload

from anyfold._mapping import Mapping, ReturnAs
from anyfold._session import refuse_journal
from anyfold._worker.execute import inherited_seed
from anyfold.errors import InvalidInputError
from anyfold.settings import Resolved, Settings, resolve, with_settings_signature

__all__ = ["parallel_map", "parallel_starmap"]

T = TypeVar("T")


@overload
def parallel_map(
    fn: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    return_as: Literal["list"] = "list",
    random_state: Any = None,
    **settings: Unpack[Settings],
) -> list[T]: ...


@overload
def parallel_map(
    fn: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    return_as: Literal["generator", "generator_unordered"],
    random_state: Any = None,
    **settings: Unpack[Settings],
) -> Iterator[T]: ...


@with_settings_signature
def parallel_map(
    fn: Callable[..., Any],
    /,
    *iterables: Iterable[Any],
    return_as: ReturnAs = "list",
    random_state: Any = None,
    **settings: Unpack[Settings],
) -> Any:
    """Call a function with each item, in parallel, like `map`.

    Items that take next to no time are grouped. Large data that all calls need is best bound to the function
    with `functools.partial`: it is published once, and workers read it without a copy.

    Parameters
    ----------
    fn : callable
        Takes as many arguments as there are iterables. It may be defined anywhere.
    *iterables : iterable
        Items, drawn as they are needed; the shortest iterable says where to stop. An endless one can be
        used with a generator.
    return_as : {"list", "generator", "generator_unordered"}, default="list"
        All values in order; or values one by one as the iterator is asked for them, in order or as they come.
        A generator that is closed stops what runs.
    random_state : int, RandomState, Generator or None, default=None
        Root of the seeds of ``random`` and ``numpy.random``, which are set for each item by its index, except
        in threads. None seeds with what differs from run to run. ``ANYFOLD_RANDOM_STATE`` sets the default.
    **settings : Settings
        How to run.

    Returns
    -------
    list or iterator
        What the function returned for each item.

    Raises
    ------
    Exception
        The first error of the function, by the order of items, with a note that names the index of the item.
    WorkerLostError
        If an item ended its worker more often than ``retries`` allows.
    TaskTimeoutError
        If an item took longer than ``timeout``.
    TimeLimitError
        If ``time_limit`` was over; its attribute ``result`` has the values of what had finished, by index.
    InvalidInputError
        If the function or the items cannot be used; before any work starts.
    InvalidSettingError
        If a setting cannot be used.
    UnsupportedFeatureError
        If the backend cannot do what a setting asks for, or a ``journal`` is given: values of any type could
        be read from it only by running code.
    KeyboardInterrupt
        On Ctrl-C, with the values of what had finished as its attribute ``result``, by index.

    See Also
    --------
    parallel_starmap : Takes the arguments of each call as a tuple.

    Examples
    --------
    >>> import anyfold as af
    >>> af.parallel_map(pow, [2, 3, 4], [5, 2, 0], backend="serial")
    [32, 9, 1]
    >>> from itertools import count
    >>> squares = af.parallel_map(lambda x: x * x, count(), return_as="generator", backend="threads")
    >>> next(squares), next(squares), next(squares)
    (0, 1, 4)
    >>> squares.close()
    """
    if not iterables:
        raise InvalidInputError("parallel_map needs an iterable of items for the function")
    inputs = [_checked(each, "iterables") for each in iterables]
    lengths = [len(each) for each in inputs if isinstance(each, Sized)]
    n_inputs = min(lengths) if len(lengths) == len(inputs) else None
    drawn: Iterator[Any] = zip(*inputs, strict=False) if len(inputs) > 1 else iter(inputs[0])
    return _mapped(
        fn,
        drawn,
        n_inputs,
        spread=len(inputs) > 1,
        return_as=return_as,
        random_state=random_state,
        settings=resolve(settings, caller=parallel_map),
    )


@overload
def parallel_starmap(
    fn: Callable[..., T],
    iterable: Iterable[Iterable[Any]],
    /,
    *,
    return_as: Literal["list"] = "list",
    random_state: Any = None,
    **settings: Unpack[Settings],
) -> list[T]: ...


@overload
def parallel_starmap(
    fn: Callable[..., T],
    iterable: Iterable[Iterable[Any]],
    /,
    *,
    return_as: Literal["generator", "generator_unordered"],
    random_state: Any = None,
    **settings: Unpack[Settings],
) -> Iterator[T]: ...


@with_settings_signature
def parallel_starmap(
    fn: Callable[..., Any],
    iterable: Iterable[Iterable[Any]],
    /,
    *,
    return_as: ReturnAs = "list",
    random_state: Any = None,
    **settings: Unpack[Settings],
) -> Any:
    """Call a function with each tuple of arguments, in parallel, like `itertools.starmap`.

    Parameters
    ----------
    fn : callable
        Called as ``fn(*arguments)``.
    iterable : iterable of tuple
        The arguments of each call, drawn as they are needed.
    return_as : {"list", "generator", "generator_unordered"}, default="list"
        As in `parallel_map`.
    random_state : int, RandomState, Generator or None, default=None
        As in `parallel_map`.
    **settings : Settings
        How to run.

    Returns
    -------
    list or iterator
        What the function returned for each tuple.

    Raises
    ------
    Exception
        As `parallel_map` raises.

    See Also
    --------
    parallel_map : Takes each argument from an iterable of its own.

    Examples
    --------
    >>> import anyfold as af
    >>> af.parallel_starmap(pow, [(2, 5), (3, 2)], backend="serial")
    [32, 9]
    """
    inputs = _checked(iterable, "iterable")
    return _mapped(
        fn,
        iter(inputs),
        len(inputs) if isinstance(inputs, Sized) else None,
        spread=True,
        return_as=return_as,
        random_state=random_state,
        settings=resolve(settings, caller=parallel_starmap),
    )


def _mapped(
    fn: Callable[..., Any],
    inputs: Iterator[Any],
    n_inputs: int | None,
    *,
    spread: bool,
    return_as: ReturnAs,
    random_state: Any,
    settings: Resolved,
) -> Any:
    if not callable(fn):
        raise InvalidInputError(f"fn is {type(fn).__name__} {fn!r:.60}, which cannot be called")
    if return_as not in get_args(ReturnAs):
        allowed = ", ".join(map(repr, get_args(ReturnAs)))
        raise InvalidInputError(f"return_as={return_as!r}: allowed are {allowed}")
    refuse_journal(
        settings,
        "a map has no journal. Opening one must run no code, and values of any type cannot be read without",
    )
    given = settings.random_state if random_state is None else random_state
    mapping = Mapping(
        fn, inputs, n_inputs, spread, settings, inherited_seed() if given is None else given, return_as
    )
    for name in settings.resources or {}:
        if name != mapping.name:
            raise InvalidInputError(f"resources names {name!r}, but the function is called {mapping.name!r}")
    return mapping.to_list() if return_as == "list" else mapping.one_by_one()


def _checked(iterable: Any, name: str) -> Iterable[Any]:
    try:
        iter(iterable)
    except TypeError:
        raise InvalidInputError(
            f"{name}: {type(iterable).__name__} {iterable!r:.60} cannot be iterated over"
        ) from None
    given: Iterable[Any] = iterable
    return given
