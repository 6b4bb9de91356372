"""What becomes of a call on its way to a worker and back."""

import threading
import traceback

import pytest

from anyfold._worker.call import call, dumps_call, load_answer, load_result
from anyfold.errors import UnreadableResultError, WorkerTraceback


def run(fn, *args, **kwargs):
    return load_result(call(dumps_call(fn, args, kwargs)))


class NeedsTwo(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class HoldsLock(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Refuses:
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise OSError("not here")


class Falsy(Exception):
    def __bool__(self):
        return False


def test_arguments_and_result_arrive():
    assert run(lambda a, *, b: [a, b], 1, b={"x": 2}) == [1, {"x": 2}]


def test_what_is_defined_in_a_function_travels():
    class Point:
        def __init__(self, x):
            self.x = x

    point = run(lambda x: Point(x + 1), 1)
    assert type(point) is Point
    assert point.x == 2


def test_an_exception_arrives_as_it_was_with_the_worker_traceback_as_cause():
    def outer():
        def inner():
            raise KeyError("missing")

        inner()

    with pytest.raises(KeyError, match="missing") as caught:
        run(outer)
    assert isinstance(caught.value.__cause__, WorkerTraceback)
    text = str(caught.value.__cause__)
    assert "in inner" in text
    assert "_worker/call.py" not in text
    assert "in inner" in "".join(traceback.format_exception(caught.value))


def test_the_traceback_tells_the_causes_of_the_exception():
    def fail():
        try:
            raise ValueError("first")
        except ValueError as error:
            raise TypeError("second") from error

    with pytest.raises(TypeError) as caught:
        run(fail)
    assert "ValueError: first" in str(caught.value.__cause__)


@pytest.mark.parametrize("exception", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Falsy("no")])
def test_no_exception_of_the_function_leaves_call(exception):
    def fail():
        raise exception

    answer = load_answer(call(dumps_call(fail, (), {})))
    assert type(answer.exception) is type(exception)
    assert answer.exception.args == exception.args


def test_notes_on_an_exception_travel():
    def fail():
        error = ValueError("bad")
        error.add_note("model 'a', fold 3")
        raise error

    with pytest.raises(ValueError) as caught:
        run(fail)
    assert caught.value.__notes__ == ["model 'a', fold 3"]


def test_an_argument_that_cannot_be_pickled_is_named_with_its_function():
    with pytest.raises(TypeError, match="lock") as caught:
        dumps_call(len, (threading.Lock(),), {})
    assert any("len" in note for note in caught.value.__notes__)


def test_a_call_that_cannot_be_unpickled_fails_alone():
    with pytest.raises(OSError, match="not here") as caught:
        run(len, Refuses())
    assert any("unpickling" in note for note in caught.value.__notes__)
    assert "_refuse" in str(caught.value.__cause__)


def test_a_result_that_cannot_be_pickled_is_an_error_that_says_so():
    with pytest.raises(
        UnreadableResultError, match=r"result of .*, of type _thread\.lock.*cannot pickle"
    ) as caught:
        run(lambda: threading.Lock())
    assert isinstance(caught.value.__cause__, WorkerTraceback)


def test_a_result_that_cannot_be_unpickled_is_an_error_that_says_so():
    with pytest.raises(
        UnreadableResultError, match=r"result cannot be unpickled.*OSError: not here"
    ) as caught:
        run(Refuses)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("exception", "told"),
    [(lambda: NeedsTwo(1, 2), "NeedsTwo: 1 and 2"), (lambda: HoldsLock("held"), "HoldsLock: held")],
)
def test_an_exception_that_cannot_travel_keeps_type_message_and_traceback(exception, told):
    def fail():
        raise exception()

    with pytest.raises(UnreadableResultError, match=told) as caught:
        run(fail)
    assert "in fail" in str(caught.value.__cause__)


def test_an_exception_whose_message_cannot_be_shown_travels():
    def fail():
        raise Silent("x")

    with pytest.raises(Silent):
        run(fail)


def test_large_arrays_are_not_copied_into_the_answer_twice():
    import tracemalloc

    import numpy as np

    payload = dumps_call(np.zeros, (4_000_000,), {})
    tracemalloc.start()
    try:
        call(payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * 32_000_000
