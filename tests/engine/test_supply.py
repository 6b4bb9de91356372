"""Leaves are drawn as needed, in order, and those that were lost come first."""

from anyfold._engine.supply import Supply
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
