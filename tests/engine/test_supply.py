"""Leaves are drawn as needed, in order, and those that were lost come first."""

from anyfold._engine.supply import Supply
from anyfold._plan.prefix import Layout
from anyfold._plan.task import Leaf, TaskKey


def leaves(*models):
    return [Leaf(TaskKey(model, 0, 0)) for model in models]


def names(unit):
    return [leaf.key.model for leaf in unit]


def supply(*models, resources=None, outcomes=()):
    return Supply(iter(leaves(*models)), len(models), resources or {}, outcomes, rank)


def rank(key):
    return ord(key.model)


def test_leaves_are_drawn_in_order_and_no_sooner_than_needed():
    drawn = []

    def draw():
        for leaf in leaves(*"abcd"):
            drawn.append(leaf.key.model)
            yield leaf

    fresh = Supply(draw(), 4, {}, (), rank)
    assert names(fresh.take(1)) == ["a"]
    assert drawn == ["a"]
    assert names(fresh.take(2)) == ["b", "c"]
    assert names(fresh.take(9)) == ["d"]
    assert fresh.take(1) == ()
    assert fresh.n_fresh == 0


def test_what_is_put_back_comes_first_as_one_unit():
    stock = supply(*"abc")
    unit = stock.take(2)
    stock.put_back(unit)
    assert names(stock.take(1)) == ["a", "b"]
    assert names(stock.take(1)) == ["c"]


def test_what_has_an_outcome_is_not_run_again():
    outcomes = set()
    stock = supply(*"ab", outcomes=outcomes)
    unit = stock.take(2)
    stock.put_back(unit)
    outcomes.add(unit[0].key)
    assert names(stock.take(1)) == ["b"]


def test_a_unit_needs_one_kind_of_resources():
    gpu = {"gpu": 1.0}
    stock = supply(*"abcd", resources={"b": gpu, "c": gpu})
    taken = []
    while unit := stock.take(10):
        taken.append((names(unit), dict(stock.needs(unit[0]))))
    assert taken == [(["a"], {}), (["b", "c"], gpu), (["d"], {})]


def test_behind_the_cutoff_nothing_counts():
    stock = supply(*"abcd")
    a, b, c = stock.take(3)
    stock.cut_off(c.key)
    stock.cut_off(b.key)
    assert stock.take(1) == ()
    assert stock.is_wanted(a)
    assert not stock.is_wanted(b)
    stock.put_back([a, c])
    assert names(stock.take(1)) == ["a"]


def test_draining_draws_everything_that_is_left():
    stock = supply(*"abc")
    stock.put_back(stock.take(1))
    rest = list(stock.drain())
    assert names(rest) == ["a", "b", "c"]


PATHS = {("a", 0): (0, 1), ("b", 0): (0, 1), ("c", 0): (0, 2), ("d", 0): (0, 2), ("e", 0): ()}


class Given:
    released = False

    def release(self):
        self.released = True


def tree(branch_depth, stems, most_stems=1):
    shape = Layout(PATHS, branch_depth, frozenset(stems))
    return Supply(iter(leaves(*"abcde")), 5, {}, set(), rank, shape, most_stems)


def test_a_branch_is_one_unit_however_small_units_are():
    stock = tree(2, [])
    taken = [names(unit) for unit in iter(lambda: stock.take(1), ())]
    assert taken == [["a", "b"], ["c", "d"], ["e"]]


def test_what_grows_from_a_stem_waits_for_it_and_its_branches_stay_whole():
    stock = tree(2, [(0,)])
    assert stock.take(1) == ()
    stem = stock.next_stem()
    assert (stem.path, stem.example.key.model) == ((0,), "a")
    assert stock.take(1) == ()  # one at a time
    given = Given()
    stock.fitted(stem, given)
    assert [names(stock.take(1)) for _ in range(3)] == [["a", "b"], ["c", "d"], []]
    for leaf in leaves(*"abcd"):
        assert stock.stem_of(leaf) is stem
        assert not given.released
        stock.finished(leaf.key)
    assert given.released
    assert names(stock.take(1)) == ["e"]


def test_leaves_right_behind_a_stem_are_spread():
    stock = tree(3, [(0,), (0, 1), (0, 2)], most_stems=3)
    stock.take(1)
    stock.fitted(stock.next_stem(), Given())
    first = stock.next_stem()
    assert first.path == (0, 1)
    stock.fitted(first, Given())
    assert [names(stock.take(1)) for _ in range(2)] == [["a"], ["b"]]


def test_a_stem_that_could_not_be_fitted_keeps_nobody_waiting():
    stock = tree(2, [(0,)])
    stock.take(1)
    stock.fitted(stock.next_stem(), None)
    assert names(stock.take(1)) == ["a", "b"]
