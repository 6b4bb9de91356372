"""Category ``seeds``: promise 2, seeds by identity, and the caller's state left alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from anyfold.testing._base import ContractBase, oracle
from anyfold.testing._case import contract_test
from anyfold.testing._limits import PATIENCE
from anyfold.testing._lives import life_of
from anyfold.testing.probes import Fails, Noisy, Probe, add, probe_data

__all__ = ["SeedTests"]


def _nested(name: str) -> Any:
    from sklearn.ensemble import BaggingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.tree import ExtraTreeClassifier

    return Pipeline([("probe", "passthrough"), (name, BaggingClassifier(ExtraTreeClassifier(), 4))])


def _folds() -> Any:
    from sklearn.model_selection import KFold

    from anyfold import Folds

    return Folds(*probe_data(), cv=KFold(3))


def _seeds_of(result: Any) -> dict[str, list[Any]]:
    return {
        name: [
            (m.steps[1][1].random_state, m.steps[1][1].estimator.random_state)
            for m in result.estimators(name)
        ]
        for name in result.models
    }


class SeedTests(ContractBase):
    """Whether numbers depend on what a task is, and on nothing else."""

    @contract_test("seeds")
    def test_open_random_states_are_seeded_by_what_they_are_of(self) -> None:
        """Each open ``random_state``, nested ones too, has the serial seed, whatever the model's name."""
        names = ("a", "b", "c")
        expected = _seeds_of(
            oracle({name: _nested("bag") for name in names}, _folds(), return_estimator=True)
        )
        found = _seeds_of(
            self.run_cv({name: _nested("bag") for name in names}, _folds(), return_estimator=True)
        )
        assert found == expected, f"seeds are {found}, on the serial backend {expected}"
        assert found["a"] == found["b"] == found["c"], f"equal models have unequal seeds: {found}"
        assert len(set(found["a"])) == 3, f"folds share their seeds: {found['a']}"

    @contract_test("seeds")
    def test_the_root_of_all_seeds_counts(self) -> None:
        """Another ``random_state`` of the run gives other seeds, and the same one the same."""
        runs = [
            _seeds_of(self.run_cv(_nested("bag"), _folds(), random_state=root, return_estimator=True))
            for root in (1, 2, 1)
        ]
        assert runs[0] == runs[2], "the same random_state gave other seeds"
        assert runs[0] != runs[1], "random_state=1 and random_state=2 gave the same seeds"

    @contract_test("seeds")
    def test_global_generators_are_seeded(self) -> None:
        """Models that draw from ``random`` and ``numpy.random`` get the serial numbers, except in threads."""
        models = {"one": Noisy(), "two": Noisy()}
        if self.isolation == "thread":
            self._draw_from_the_process()
            return
        expected, found = oracle(models, _folds()), self.run_cv(models, _folds())
        for name in models:
            have, want = found[name]["test_score"], expected[name]["test_score"]
            assert have.tobytes() == want.tobytes(), f"draws from global generators: {have}, serially {want}"
        assert len(set(found["one"]["test_score"])) == 3, "folds draw the same numbers"

    def _draw_from_the_process(self) -> None:
        self.note("seeding global generators: in threads they belong to the whole process")
        states = random.getstate(), np.random.get_state()
        try:
            with self.executor() as executor:
                random.seed(5)
                np.random.seed(5)
                found = self.run_cv(Noisy(on=(0,)), _folds(), executor, return_estimator=True)
            expected = [random.Random(5).random(), *np.random.RandomState(5).random(3)]
            drawn = found.estimators("noisy")[0].noise_
            assert drawn == expected, f"a thread drew {drawn}, the process' generators would give {expected}"
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])

    @contract_test("seeds")
    def test_the_callers_generators_are_left_alone(self) -> None:
        """Neither plain tasks nor runs move the caller's global generators."""
        random.seed(11)
        np.random.seed(11)
        before = random.getstate(), repr(np.random.get_state())
        with self.executor() as executor:
            assert [executor.submit(add, i).result(PATIENCE) for i in range(4)] == list(range(4))
            after = random.getstate(), repr(np.random.get_state())
            assert after == before, "plain tasks moved the caller's global generators"
            model = Probe() if self.isolation == "thread" else Noisy()
            self.run_cv({"model": model, "fails": Fails(on=(0,))}, _folds(), executor)
        after = random.getstate(), repr(np.random.get_state())
        assert after == before, "a run moved the caller's global generators"

    @contract_test("seeds")
    def test_the_callers_state_is_left_alone(self) -> None:
        """Environment, working directory, import path, filters and scikit-learn's configuration stay."""
        life = life_of(self)
        for what, before in life.before.items():
            after = life.after[what]
            assert after == before, f"{what} changed from {before} to {after}"

    @contract_test("seeds")
    def test_workers_do_not_draw_the_same_numbers(self) -> None:
        """Unseeded plain tasks do not repeat each other's draws, as forked copies of one process would."""
        state = np.random.get_state()
        try:
            with self.executor() as executor:
                draws = [executor.submit(_draw).result(PATIENCE) for _ in range(6)]
        finally:
            np.random.set_state(state)
        assert len(set(draws)) == 6, f"six tasks drew {draws}"


def _draw() -> float:
    return float(np.random.random())
