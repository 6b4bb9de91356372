"""What depends on how workers are started, or on what joblib stands on, where it is not the default."""

import joblib
import pytest

from anyfold import get_executor
from anyfold.testing import ExecutorContract, run_contract


class Fork(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("multiprocessing", max_workers, start_method="fork", **options)


class JoblibThreading(ExecutorContract):
    def make_executor(self, max_workers, **options):
        with joblib.parallel_config("threading"):
            return get_executor("joblib", max_workers, **options)


DEPENDS = {
    Fork: ("data", "seeds", "timeouts", "threads"),
    JoblibThreading: ("protocol", "seeds", "relay", "threads"),
}


@pytest.mark.timeout(400)  # of one test of the contract: its time_limit
@pytest.mark.parametrize("contract", DEPENDS, ids=lambda contract: contract.__name__)
def test_what_depends_on_the_variant_is_as_promised(contract):
    results = run_contract(contract, categories=DEPENDS[contract])
    failed = [f"{result.name}: {result.traceback}" for result in results if not result.is_good]
    assert not failed, "\n".join(failed)
    assert {result.category for result in results} == set(DEPENDS[contract])
