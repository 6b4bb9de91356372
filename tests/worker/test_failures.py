"""What a worker keeps of an exception is enough to raise it again elsewhere."""

import pickle

import pytest

from anyfold._worker.failures import failure_of


class OtherArguments(Exception):
    """Passes on something else than it takes, so that pickle alone could not make it again."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class HoldsWhatCannotTravel(Exception):
    def __init__(self):
        super().__init__("stays here")
        self.function = lambda: (yield)
        self.running = self.function()


def test_an_exception_with_other_arguments_comes_back_as_it_was():
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(OtherArguments(code=7)))
    error = pickle.loads(failure_of("fit", OtherArguments(code=7)).exception)
    assert type(error) is OtherArguments
    assert (error.args, error.code) == (("code 7",), 7)


def test_an_ordinary_one_is_pickled_as_pickle_does():
    error = pickle.loads(failure_of("fit", ValueError("no", 3)).exception)
    assert (type(error), error.args) == (ValueError, ("no", 3))


def test_of_one_that_cannot_travel_the_words_are_kept():
    failure = failure_of("fit", HoldsWhatCannotTravel())
    assert failure.exception is None
    assert (failure.type_name, failure.message) == ("HoldsWhatCannotTravel", "stays here")
