"""Of a pickled list that cannot be read, what comes before the item to blame can."""

import numpy as np
import pytest

from anyfold._data.readable import readable_items
from anyfold._data.serialize import dumps

SHARED = [1, [2]]
GOOD = [
    SHARED,
    (),
    (1, 2, 3, 4, 5),
    {"a": [1], "b": {2}},
    b"x" * 100_000,
    frozenset([3]),
    SHARED,
    np.float64(3),
    range(3),
    pytest,
]


class Trap:
    def __reduce__(self):
        return int, ("no number",)


@pytest.mark.parametrize("trap", [Trap(), [1, Trap()], (1, 2, 3, 4, Trap()), {"a": (Trap(),)}])
@pytest.mark.parametrize("n_before", [0, 1, 9, 1000, 1001, 2003])  # a pickle has series of a thousand
@pytest.mark.parametrize("n_behind", [0, 1, 1000])
def test_items_before_the_first_that_cannot_be_read_are_read(trap, n_before, n_behind):
    before = [GOOD[index % len(GOOD)] for index in range(n_before)]
    assert readable_items(dumps([*before, trap, *range(n_behind)])) == before
