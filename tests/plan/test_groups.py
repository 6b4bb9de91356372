"""How many items a group has, and what groups are called."""

import pytest

from anyfold._plan.groups import MOST_BYTES, MOST_ITEMS, BatchKey, Group, ItemKey, group_size
from anyfold._plan.units import WORTH_DISPATCHING


@pytest.mark.parametrize(
    ("known", "size"),
    [
        ({"item_seconds": None}, 1),
        ({"item_seconds": None, "start": 64}, 64),
        ({"item_seconds": None, "start": 64, "n_left": 8}, 2),
        ({"item_seconds": 1.0}, 1),
        ({"item_seconds": WORTH_DISPATCHING / 10}, 10),
        ({"item_seconds": 1e-9}, MOST_ITEMS),
        ({"item_seconds": 1e-9, "largest": 1}, 64),
        ({"item_seconds": 1e-9, "item_bytes": MOST_BYTES / 4}, 4),
        ({"item_seconds": 1e-9, "item_bytes": 1e12}, 1),
        ({"item_seconds": WORTH_DISPATCHING / 1000, "n_left": 1000}, 250),
        # What is left makes groups of equal size, where more of them were not worth their way.
        ({"item_seconds": WORTH_DISPATCHING / 1000, "n_left": 4}, 4),
        ({"item_seconds": WORTH_DISPATCHING / 1000, "n_left": 90}, 45),
    ],
)
def test_a_group_is_worth_its_way_and_leaves_something_to_the_others(known, size):
    known = {"n_left": None, "item_bytes": 0.0, "largest": 10_000, **known}
    assert group_size(n_workers=2, **known) == size


def test_items_are_named():
    assert str(ItemKey("f", 1, 3)) == "f, item 3"
    assert str(ItemKey("f", 2, 3)) == "f, items 3, 4"
    assert str(ItemKey("f", 90, 10)) == "f, items 10 to 99"
    assert str(BatchKey("f", 1, 3)) == "f, batch 3"
    assert ItemKey.names("f", [9, 3]) == "f, items 3, 9"
    assert ItemKey.names("f", range(0, 40, 2)).endswith("16, 18 and 10 more")


def test_a_group_is_taken_apart_into_its_items():
    group = Group.of(ItemKey("f", 3, 7), ["a", "b", "c"], str)
    parts = group.parts()
    assert [(str(part.key), part.load) for part in parts] == [
        ("f, item 7", "['a']"),
        ("f, item 8", "['b']"),
        ("f, item 9", "['c']"),
    ]
    assert parts[0].parts() == []
