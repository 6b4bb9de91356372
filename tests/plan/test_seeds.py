"""Seeds depend on what a number depends on, and on nothing else."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from anyfold._plan.seeds import root_seed, seed_for, unset_random_states
from anyfold._plan.task import REFIT
from anyfold.errors import InvalidInputError


def test_a_seed_depends_on_root_path_and_fold():
    base = seed_for(0, "random_state", 0)
    assert base == seed_for(0, "random_state", 0)
    others = {
        seed_for(1, "random_state", 0),
        seed_for(0, "rf__random_state", 0),
        seed_for(0, "random_state", 1),
        seed_for(0, "random_state", REFIT),
    }
    assert base not in others
    assert len(others) == 4


def test_seeds_do_not_change_between_versions_of_anyfold():
    # Journals and published tables rely on these numbers.
    assert [seed_for(0, "random_state", fold) for fold in (0, 1, REFIT)] == [
        183549336,
        2000068228,
        1666515536,
    ]


def test_every_unset_random_state_gets_a_seed_and_no_other():
    model = VotingClassifier(
        [
            ("forest", RandomForestClassifier()),
            ("fixed", SGDClassifier(random_state=3)),
            ("pipe", make_pipeline(StandardScaler(), LogisticRegression())),
        ]
    )
    seeds = unset_random_states(model.get_params(), root=7, fold=2)
    assert set(seeds) == {"forest__random_state", "pipe__logisticregression__random_state"}
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds.values())


def test_an_estimator_without_random_states_gets_none():
    assert unset_random_states(StandardScaler().get_params(), root=0, fold=0) == {}


def test_no_random_state_draws_a_root_that_differs():
    assert root_seed(None) != root_seed(None)


def test_drawing_a_root_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].tolist()
    root_seed(None)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("given", [5, np.int64(5), np.uint8(5)])
def test_an_integer_is_the_root(given):
    root = root_seed(given)
    assert root == 5
    assert type(root) is int


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_a_generator_is_drawn_from_once(make):
    assert root_seed(make(1)) == root_seed(make(1))
    generator = make(1)
    assert root_seed(generator) != root_seed(generator)


@pytest.mark.parametrize("wrong", ["0", 1.0, -1, True, [1], object()])
def test_anything_else_is_refused_by_name_and_value(wrong):
    with pytest.raises(InvalidInputError, match=r"random_state=.* pass a non-negative int"):
        root_seed(wrong)
