"""The machinery of the contract: strictness, time limits, and two ways to run it."""

import subprocess
import sys
import textwrap
import threading

import pytest

from anyfold import get_executor
from anyfold.testing import CATEGORIES, ExecutorContract, run_contract
from anyfold.testing._limits import TimeLimitExceeded, time_limit, wait_until
from anyfold.testing.contract import contract_cases
from anyfold.testing.probes import hold

NAME = "test_arguments_arrive"


class Serial(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("serial", max_workers, **options)


def test_a_test_cannot_be_overridden():
    with pytest.raises(TypeError, match=f"overrides {NAME}, a test of the contract"):

        class Mutes(Serial):
            def test_arguments_arrive(self):
                pass


def test_a_test_cannot_be_taken_away():
    with pytest.raises(TypeError, match=f"overrides {NAME}"):

        class Removes(Serial):
            test_arguments_arrive = None


def test_a_test_cannot_be_overridden_by_another_base():
    class Mixin:
        def test_arguments_arrive(self):
            pass

    with pytest.raises(TypeError, match=f"overrides {NAME}"):

        class Mixes(Mixin, Serial):
            pass


@pytest.mark.parametrize(
    ("failures", "told"),
    [({"test_nothing": "x"}, "no such test"), ({NAME: ""}, "no reason"), ({NAME: None}, "no reason")],
)
def test_an_expected_failure_names_a_test_and_a_reason(failures, told):
    with pytest.raises(TypeError, match=told):

        class Expects(Serial):
            expected_failures = failures


def test_a_factory_is_needed():
    class Lacks(ExecutorContract):
        pass

    with pytest.raises(TypeError, match="make_executor"):
        Lacks()


class ExpectsInVain(Serial):
    expected_failures = {NAME: "for no reason"}  # noqa: RUF012


class Broken(Serial):
    expected_failures = {"test_tasks_run_where_the_executor_says": "it says something else"}  # noqa: RUF012

    def make_executor(self, max_workers, **options):
        executor = super().make_executor(max_workers, **options)
        executor.isolation = "process"
        return executor


def test_the_runner_is_strict_about_expected_failures():
    (result,) = run_contract(ExpectsInVain, tests=[NAME])
    assert (result.status, result.is_good) == ("unexpected pass", False)
    assert "passes, but was expected to fail: 'for no reason'" in result.reason
    (result,) = run_contract(Broken, tests=["test_tasks_run_where_the_executor_says"])
    assert (result.status, result.is_good) == ("expected failure", True)
    assert result.reason == "it says something else"


def test_the_runner_reports_each_result_as_it_comes():
    reported = []
    results = run_contract(Serial, categories=["protocol"], report=reported.append)
    assert reported == results
    assert {result.category for result in results} == {"protocol"}
    assert all(result.status == "passed" for result in results)


def test_pytest_is_strict_about_expected_failures_and_selects_by_category(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent(
            f"""
            from anyfold import get_executor
            from anyfold.testing import ExecutorContract

            class TestMine(ExecutorContract):
                expected_failures = {{
                    "{NAME}": "for no reason",
                    "test_tasks_run_where_the_executor_says": "it says something else",
                }}

                def make_executor(self, max_workers, **options):
                    executor = get_executor("serial", max_workers)
                    executor.isolation = "thread"
                    return executor
            """
        )
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", "--strict-markers"]
    names = f"({NAME} or test_tasks_run_where or test_futures_are) and protocol"
    done = subprocess.run([*command, "-k", names], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed, " in done.stdout, done.stdout
    assert "1 xfailed" in done.stdout
    assert "passes, but was expected to fail: 'for no reason'" in done.stdout
    done = subprocess.run(
        [*command, "--collect-only", "-k", "relay"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert f"{len(contract_cases(['relay']))}/{len(contract_cases())} tests collected" in done.stdout


def test_neither_the_contract_nor_its_probes_import_pytest():
    code = "import sys, anyfold.testing.contract, anyfold.testing.probes; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_test_has_a_category_and_says_what_it_is_for():
    cases = contract_cases()
    assert {case.category for case in cases} == set(CATEGORIES)
    assert all(case.intent.endswith(".") and len(case.intent) < 120 for case in cases)
    names = [name for name in dir(ExecutorContract) if name.startswith("test_")]
    assert sorted(names) == sorted(case.name for case in cases)


def test_an_unknown_category_is_refused():
    with pytest.raises(ValueError, match="no category 'speed'"):
        contract_cases(["speed"])


def test_a_time_limit_shows_the_stacks_of_all_threads(tmp_path):
    def waits_in_a_thread():
        hold(tmp_path)

    thread = threading.Thread(target=waits_in_a_thread)
    thread.start()
    never = threading.Event()
    try:
        with pytest.raises(TimeLimitExceeded) as caught, time_limit(0.3, "this"):
            never.wait()
    finally:
        (tmp_path / "go").touch()
        thread.join()
    assert "this did not end within 0.3 s" in str(caught.value)
    assert "in waits_in_a_thread" in str(caught.value)
    assert "test_a_time_limit_shows" in str(caught.value)


def test_a_time_limit_ends_with_its_block():
    with time_limit(0.05, "this"):
        pass
    wait_until(lambda: True, "nothing")
    threading.Event().wait(0.1)  # the limit would strike here


def test_a_test_that_hangs_fails_with_its_stack():
    class Hangs(Serial):
        time_limit = 0.3

        def make_executor(self, max_workers, **options):
            threading.Event().wait()

    (result,) = run_contract(Hangs, tests=[NAME])
    assert result.status == "failed"
    assert "TimeLimitExceeded" in result.reason
    assert "in make_executor" in result.traceback
