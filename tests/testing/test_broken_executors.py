"""Every promise that is broken is noticed, by the test that is there for it."""

from functools import cache
from pathlib import Path

import pytest
from tests.testing import broken_executors as broken

from anyfold.testing import CATEGORIES, ExecutorContract, _interrupts, _limits, _threads, run_contract
from anyfold.testing._processes import children_left, descendants
from anyfold.testing.contract import contract_cases

HANGS = "did not end within"
LONG_ENOUGH = {"protocol": 4.0, "timeouts": 6.0, "interrupts": 12.0}
"""Seconds that good executors need at most, by category."""

NOTICED = {
    # protocol
    broken.LosesKeywords: ("test_arguments_arrive", "add, 1, b=3"),
    broken.ReturnsFuturesOfItsOwn: (
        "test_futures_are_those_of_the_standard_library",
        "not a concurrent.futures.Future",
    ),
    broken.ReturnsInOrderOfCompletion: (
        "test_results_belong_to_their_futures",
        "two tasks that ended in reverse order",
    ),
    broken.DropsATask: ("test_each_task_runs_exactly_once", "tasks ran this often"),
    broken.ForgetsATask: ("test_each_task_runs_exactly_once", HANGS),
    broken.RunsOneTwice: ("test_each_task_runs_exactly_once", "tasks ran this often: [2, 2"),
    broken.SwallowsExceptions: ("test_exceptions_keep_their_type_and_arguments", "its future has None"),
    broken.ChangesExceptions: (
        "test_exceptions_keep_their_type_and_arguments",
        "its future has RuntimeError",
    ),
    broken.LosesTheTraceback: (
        "test_exceptions_show_where_they_were_raised",
        "does not name the task's function",
    ),
    broken.IgnoresCancel: ("test_a_waiting_task_can_be_cancelled", "a task that runs was cancelled"),
    broken.NeverCancels: ("test_shutdown_can_cancel_what_waits", "cancelled nothing"),
    broken.ShutdownDoesNotWait: (
        "test_shutdown_waits_and_may_be_repeated",
        "returned before the tasks were done",
    ),
    broken.ClosesOnce: ("test_shutdown_waits_and_may_be_repeated", "was shut down before"),
    broken.NeverCloses: ("test_submit_after_shutdown_is_refused", "did not raise RuntimeError"),
    broken.CallsBackTwice: ("test_callbacks_are_called_once_with_their_future", "late == [futures[0]]"),
    broken.LocksWhileCallingBack: ("test_callbacks_may_submit", HANGS),
    broken.LiesAboutIsolation: (
        "test_tasks_run_where_the_executor_says",
        "isolation is 'process', the task ran in",
    ),
    broken.SharesItsWorkers: ("test_two_executors_do_not_disturb_each_other", "cannot schedule new futures"),
    broken.DeclaresWhatItLacks: ("test_declarations_are_true", "is declared without"),
    broken.DeclaresWhatIsUnknown: ("test_declarations_are_true", "unknown capabilities"),
    broken.StopsNothing: ("test_running_work_can_be_stopped", "a task still runs after stop_running()"),
    # data
    broken.MutatesSharedData: (
        "test_models_that_write_get_copies_of_their_own",
        "saw what others had written",
    ),
    broken.SharesWhatCanBeWritten: (
        "test_an_executor_shares_objects_by_itself_or_says_that_it_does_not",
        "can write to what is shared",
    ),
    broken.SendsDataWithEveryTask: ("test_data_is_not_sent_with_every_task", "and a task that was submitted"),
    broken.NoticesNoChange: ("test_changed_data_is_noticed", "from before the change"),
    broken.ConvertsData: ("test_every_kind_of_data_arrives_as_it_is", "'float32'"),
    # identity
    broken.SwapsTwoFolds: (
        "test_every_kind_of_model_gives_the_serial_numbers",
        "differ from the serial backend's",
    ),
    broken.RoundsScores: ("test_the_number_of_workers_changes_nothing", "differ from the serial backend's"),
    # seeds
    broken.ReseedsByPosition: ("test_open_random_states_are_seeded_by_what_they_are_of", "seeds are"),
    broken.IgnoresTheRoot: ("test_the_root_of_all_seeds_counts", "gave the same seeds"),
    broken.ChangesTheCallersGenerator: (
        "test_the_callers_generators_are_left_alone",
        "moved the caller's global generators",
    ),
    broken.ChangesTheCallersEnvironment: ("test_the_callers_state_is_left_alone", "environment changed"),
    broken.ChangesTheCallersFilters: ("test_the_callers_state_is_left_alone", "warning filters changed"),
    broken.StartsAllWorkersAlike: ("test_workers_do_not_draw_the_same_numbers", "six tasks drew"),
    # pickling
    broken.PicklesByName: ("test_functions_defined_anywhere_are_tasks", "Can't pickle"),
    # errors
    broken.SwallowsFailures: ("test_an_error_of_a_model_is_kept_with_what_it_is_of", "()"),
    broken.RetriesErrors: ("test_an_error_of_a_model_is_never_retried", "fits were started this often"),
    # lost_workers
    broken.HangsOnADeadWorker: ("test_a_lost_worker_is_an_error_of_its_task", "is never done"),
    broken.BreaksWithoutSayingSo: (
        "test_a_lost_worker_is_an_error_of_its_task",
        "the future has BrokenExecutor",
    ),
    broken.RetriesByItself: ("test_only_the_guilty_task_fails", "started"),
    broken.LeavesAnOrphan: ("test_no_process_is_left_after_a_loss", "sleep 60"),
    # timeouts
    broken.IgnoresTimeouts: ("test_a_hung_fit_is_stopped", HANGS),
    # interrupts
    broken.LeaksAProcess: ("test_shutdown_leaves_no_process", "sleep 60"),
    broken.LeaksADescriptor: ("test_executors_leave_no_descriptors", "were open, and after it"),
    broken.LeaksAFile: ("test_a_script_leaves_nothing", "leaked-"),
    broken.HoldsUpTheExit: ("test_a_script_leaves_nothing", HANGS),
    broken.OutlivesItsCaller: ("test_nothing_is_left_when_the_caller_is_killed", "sleep 60"),
    broken.SwallowsInterrupts: ("test_ctrl_c_gives_control_back", "KeyboardInterrupt in the caller"),
    # relay
    broken.DropsWarnings: ("test_warnings_are_kept_with_their_tasks", "0 warnings arrived"),
    broken.DropsLogs: ("test_logging_reaches_the_caller", "handler got []"),
    broken.DropsOutput: ("test_output_reaches_the_caller", "output is []"),
    # threads
    broken.LetsLibrariesMultiply: (
        "test_inner_threads_bound_what_a_task_uses",
        "with inner_threads=1 tasks use",
    ),
    broken.LetsThreadsMultiply: (
        "test_no_more_tasks_run_at_once_than_there_are_workers",
        "tasks ran at once on",
    ),
    broken.RunsOneByOne: ("test_all_workers_work_at_once", "2 tasks to run at once; 1 do"),
    # configuration
    broken.ForgetsTheConfiguration: ("test_the_configuration_of_scikit_learn_travels", "a task saw"),
}
"""Which test notices it, and what it says; for those that hang, that its time is over."""

CAUGHT_BY = {executor: test for executor, (test, _) in NOTICED.items()}

CATEGORY = {case.name: case.category for case in contract_cases()}


@cache
def contract_of(executor):
    test, told = NOTICED[executor]

    class Contract(ExecutorContract):
        time_limit = ExecutorContract.time_limit if told != HANGS else LONG_ENOUGH[CATEGORY[test]]

        def make_executor(self, max_workers, **options):
            return executor(max_workers, **options)

    Contract.__name__ = Contract.__qualname__ = executor.__name__
    return Contract


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    """With what stays: nobody ends it."""
    monkeypatch.setattr(_limits, "FAREWELL", 1.5)
    monkeypatch.setattr(_interrupts, "PROMPT", 1.5)
    monkeypatch.setattr(_threads, "PATIENCE", 1.5)


@pytest.mark.parametrize("executor", NOTICED, ids=lambda executor: executor.__name__)
def test_a_broken_promise_is_noticed_by_the_test_that_is_there_for_it(executor):
    test, told = NOTICED[executor]
    (result,) = run_contract(contract_of(executor), tests=[test])
    assert result.status == "failed", f"{executor.__name__} passes {result.name}"
    assert told in result.reason, f"{executor.__name__} fails {result.name} for another reason"


def test_every_category_catches_somebody():
    assert {CATEGORY[test] for test in CAUGHT_BY.values()} == set(CATEGORIES)


def test_every_broken_executor_is_in_the_table():
    helpers = {broken.ChangesOutcomes, broken.ChangesTheJob, broken.Wraps}
    defined = {
        value for value in vars(broken).values() if getattr(value, "__module__", "") == broken.__name__
    }
    executors = {value for value in defined if isinstance(value, type) and hasattr(value, "submit")}
    assert executors - helpers == set(CAUGHT_BY)


def test_a_process_that_a_broken_executor_leaves_is_ended():
    before = {process.pid for process in descendants()}
    run_contract(contract_of(broken.LeaksAProcess), tests=["test_shutdown_leaves_no_process"])
    assert broken.STARTED
    for left in broken.STARTED:
        left.wait(10)
    assert not children_left(before)


def test_the_table_in_the_documentation_is_this_one():
    page = (Path(__file__).parents[2] / "docs/contract.md").read_text()
    for executor, test in CAUGHT_BY.items():
        what = " ".join(executor.__doc__.split())
        assert f"| {CATEGORY[test]} | `{executor.__name__}` | {what} | `{test}` |" in page
