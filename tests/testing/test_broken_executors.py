"""Every promise that is broken is noticed, by the test that is there for it."""

from functools import cache
from pathlib import Path

import pytest
from tests.testing import broken_executors as broken

from anyfold.testing import CATEGORIES, ExecutorContract, _limits, run_contract
from anyfold.testing._processes import children_left, descendants
from anyfold.testing.contract import contract_cases

CAUGHT_BY = {
    # protocol
    broken.LosesKeywords: "test_arguments_arrive",
    broken.ReturnsFuturesOfItsOwn: "test_futures_are_those_of_the_standard_library",
    broken.ReturnsInOrderOfCompletion: "test_results_belong_to_their_futures",
    broken.DropsATask: "test_each_task_runs_exactly_once",
    broken.ForgetsATask: "test_each_task_runs_exactly_once",
    broken.RunsOneTwice: "test_each_task_runs_exactly_once",
    broken.SwallowsExceptions: "test_exceptions_keep_their_type_and_arguments",
    broken.ChangesExceptions: "test_exceptions_keep_their_type_and_arguments",
    broken.LosesTheTraceback: "test_exceptions_show_where_they_were_raised",
    broken.IgnoresCancel: "test_a_waiting_task_can_be_cancelled",
    broken.NeverCancels: "test_shutdown_can_cancel_what_waits",
    broken.ShutdownDoesNotWait: "test_shutdown_waits_and_may_be_repeated",
    broken.ClosesOnce: "test_shutdown_waits_and_may_be_repeated",
    broken.NeverCloses: "test_submit_after_shutdown_is_refused",
    broken.CallsBackTwice: "test_callbacks_are_called_once_with_their_future",
    broken.LocksWhileCallingBack: "test_callbacks_may_submit",
    broken.LiesAboutIsolation: "test_tasks_run_where_the_executor_says",
    broken.SharesItsWorkers: "test_two_executors_do_not_disturb_each_other",
    broken.DeclaresWhatItLacks: "test_declarations_are_true",
    broken.DeclaresWhatIsUnknown: "test_declarations_are_true",
    broken.StopsNothing: "test_running_work_can_be_stopped",
    # data
    broken.MutatesSharedData: "test_models_that_write_get_copies_of_their_own",
    broken.SharesWhatCanBeWritten: "test_an_executor_shares_objects_by_itself_or_says_that_it_does_not",
    broken.SendsDataWithEveryTask: "test_data_is_not_sent_with_every_task",
    broken.NoticesNoChange: "test_changed_data_is_noticed",
    broken.ConvertsData: "test_every_kind_of_data_arrives_as_it_is",
    # identity
    broken.SwapsTwoFolds: "test_every_kind_of_model_gives_the_serial_numbers",
    broken.RoundsScores: "test_the_number_of_workers_changes_nothing",
    # seeds
    broken.ReseedsByPosition: "test_open_random_states_are_seeded_by_what_they_are_of",
    broken.IgnoresTheRoot: "test_the_root_of_all_seeds_counts",
    broken.ChangesTheCallersGenerator: "test_the_callers_generators_are_left_alone",
    broken.ChangesTheCallersEnvironment: "test_the_callers_state_is_left_alone",
    broken.ChangesTheCallersFilters: "test_the_callers_state_is_left_alone",
    broken.StartsAllWorkersAlike: "test_workers_do_not_draw_the_same_numbers",
    # pickling
    broken.PicklesByName: "test_functions_defined_anywhere_are_tasks",
    # errors
    broken.SwallowsFailures: "test_an_error_of_a_model_is_kept_with_what_it_is_of",
    broken.RetriesErrors: "test_an_error_of_a_model_is_never_retried",
    # lost_workers
    broken.HangsOnADeadWorker: "test_a_lost_worker_is_an_error_of_its_task",
    broken.BreaksWithoutSayingSo: "test_a_lost_worker_is_an_error_of_its_task",
    broken.RetriesByItself: "test_only_the_guilty_task_fails",
    broken.LeavesAnOrphan: "test_no_process_is_left_after_a_loss",
    # timeouts
    broken.IgnoresTimeouts: "test_a_hung_fit_is_stopped",
    # interrupts
    broken.LeaksAProcess: "test_shutdown_leaves_no_process",
    broken.LeaksADescriptor: "test_executors_leave_no_descriptors",
    broken.LeaksAFile: "test_a_script_leaves_nothing",
    broken.HoldsUpTheExit: "test_a_script_leaves_nothing",
    broken.OutlivesItsCaller: "test_nothing_is_left_when_the_caller_is_killed",
    broken.SwallowsInterrupts: "test_ctrl_c_gives_control_back",
    # relay
    broken.DropsWarnings: "test_warnings_are_kept_with_their_tasks",
    broken.DropsLogs: "test_logging_reaches_the_caller",
    broken.DropsOutput: "test_output_reaches_the_caller",
    # threads
    broken.LetsLibrariesMultiply: "test_inner_threads_bound_what_a_task_uses",
    broken.LetsThreadsMultiply: "test_no_more_tasks_run_at_once_than_there_are_workers",
    broken.RunsOneByOne: "test_all_workers_work_at_once",
    # configuration
    broken.ForgetsTheConfiguration: "test_the_configuration_of_scikit_learn_travels",
}

CATEGORY = {case.name: case.category for case in contract_cases()}


@cache
def contract_of(executor):
    class Contract(ExecutorContract):
        time_limit = 8.0 if CATEGORY[CAUGHT_BY[executor]] == "interrupts" else 4.0

        def make_executor(self, max_workers, **options):
            return executor(max_workers, **options)

    Contract.__name__ = Contract.__qualname__ = executor.__name__
    return Contract


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr(_limits, "PATIENCE", 3.0)


@pytest.mark.parametrize("executor", CAUGHT_BY, ids=lambda executor: executor.__name__)
def test_a_broken_promise_is_noticed_by_the_test_that_is_there_for_it(executor):
    (result,) = run_contract(contract_of(executor), tests=[CAUGHT_BY[executor]])
    assert result.status == "failed", f"{executor.__name__} passes {result.name}"
    assert result.reason


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
