"""`parallel_map` and `parallel_starmap` do what `map` does, with the guarantees of a run."""

import logging
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from contextlib import closing
from functools import partial
from itertools import count, islice
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import sklearn

import anyfold as af
from anyfold._engine.supply import Supply
from anyfold._items import Items, Returned
from anyfold._mapping import AHEAD
from anyfold._plan.groups import MOST_ITEMS
from anyfold._plan.task import Outcome
from anyfold._plan.units import window_size
from anyfold.errors import (
    InvalidInputError,
    TaskTimeoutError,
    TimeLimitError,
    UnknownBackendError,
    UnreadableResultError,
    UnsupportedFeatureError,
    WorkerLostError,
)
from anyfold.events import RunStarted, TaskFinished

BACKENDS = ("serial", "threads", "multiprocessing")
parallel_map = partial(af.parallel_map, n_jobs=2)


@pytest.mark.parametrize("backend", [*BACKENDS, "processes"])
def test_it_returns_what_map_returns(backend):
    assert parallel_map(pow, range(500), range(2, 600), backend=backend) == list(
        map(pow, range(500), range(2, 502))
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_takes_functions_and_items_from_anywhere(backend):
    def shift(n):
        return n + offset

    offset = 3
    assert parallel_map(shift, (n for n in range(4)), backend=backend) == [3, 4, 5, 6]
    assert parallel_map(lambda text: text.upper(), "abc", backend=backend) == ["A", "B", "C"]
    assert parallel_map(shift, [], backend=backend) == []
    assert af.parallel_starmap(pow, [(2, 3), (3, 2)], backend=backend, n_jobs=2) == [8, 9]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_an_endless_input_is_drawn_as_it_is_needed(backend, return_as):
    drawn = []

    def numbers():
        for number in count():
            drawn.append(number)
            yield number

    squares = parallel_map(lambda n: n * n, numbers(), return_as=return_as, backend=backend)
    assert not drawn
    first = list(islice(squares, 100))
    if return_as == "generator":
        assert first == [n * n for n in range(100)]
    assert set(first) <= {n * n for n in drawn}
    assert len(drawn) <= (2 * AHEAD + window_size(2)) * MOST_ITEMS  # what may wait, and what runs
    squares.close()


def test_no_input_is_drawn_while_nobody_takes_values():
    drawn, stuck = [], threading.Event()

    def numbers():
        for number in range(10_000):
            drawn.append(number)
            yield number

    def first_is_slow(n):
        if n == 0:
            assert stuck.wait(60)
        time.sleep(0.02)  # so that items are not grouped
        if len(drawn) > 15:
            stuck.set()
        return n

    values = parallel_map(first_is_slow, numbers(), return_as="generator", backend="threads")
    assert next(values) == 0
    assert len(drawn) < 200  # what was finished behind the slow one is bounded
    values.close()


def test_unordered_values_come_before_an_earlier_item_that_takes_longer():
    go_on = threading.Event()

    def wait_for_the_others(n):
        if n == 0:
            assert go_on.wait(60)
        return n

    values = parallel_map(wait_for_the_others, range(20), return_as="generator_unordered", backend="threads")
    assert next(values) != 0
    go_on.set()
    assert len(set(values)) == 19


def test_a_generator_that_is_closed_stops_what_runs(tmp_path):
    def hang_later(n):
        if n >= 2:
            (tmp_path / str(os.getpid())).touch()
            threading.Event().wait()
        return n

    values = parallel_map(hang_later, count(), return_as="generator", backend="multiprocessing")
    with closing(values):
        assert [next(values), next(values)] == [0, 1]
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
    for pid in tmp_path.iterdir():
        assert not psutil.pid_exists(int(pid.name))
    assert list(values) == []


def test_a_generator_that_was_closed_leaves_warm_workers_warm():
    def where(_):
        return os.getpid()

    first = parallel_map(where, range(40), return_as="generator", backend="multiprocessing")
    pids = set(islice(first, 40))
    first.close()
    assert set(parallel_map(where, range(40), backend="multiprocessing")) & pids
    hanging = parallel_map(hang_from_one_on, count(), return_as="generator", backend="multiprocessing")
    assert next(hanging) == 0
    hanging.close()  # what has to be stopped costs its workers alone
    assert parallel_map(abs, [-3], backend="multiprocessing") == [3]


def test_a_generator_that_is_left_open_holds_up_no_exit():
    program = (
        "import anyfold as af\n"
        "v = af.parallel_map(abs, range(9), return_as='generator', backend='multiprocessing', n_jobs=1)\n"
        "next(v)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def hang_from_one_on(n):
    if n:
        threading.Event().wait()
    return n


def test_long_items_in_a_group_of_short_ones_are_shared_out():
    def sleep_at_the_end(n):
        if n >= 3000:
            time.sleep(0.02)
            return threading.current_thread().name
        return ""

    names = parallel_map(sleep_at_the_end, range(3048), backend="threads")[3000:]
    assert len(set(names)) == 2


# ---- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_error_in_order_is_raised_and_names_its_item(backend):
    def fail(n):
        if n in (50, 137):
            raise KeyError(n)
        return n

    with pytest.raises(KeyError, match="50") as caught:
        parallel_map(fail, range(1000), backend=backend)
    assert caught.value.__notes__ == ["raised by fail, item 50"]
    values = parallel_map(fail, range(1000), return_as="generator", backend=backend)
    assert list(islice(values, 50)) == list(range(50))
    with pytest.raises(KeyError, match="50"):
        next(values)


def test_a_later_item_that_fails_sooner_is_not_the_first():
    failed = threading.Event()

    def fail(n):
        if n == 0:
            assert failed.wait(60)
        if n == 1:
            failed.set()
        raise ValueError(n)

    with pytest.raises(ValueError, match="0"):
        parallel_map(fail, range(2), backend="threads")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_of_the_input_comes_behind_the_values_before_it(backend):
    def numbers():
        yield from range(70)
        raise OSError("no more")

    values = parallel_map(abs, numbers(), return_as="generator", backend=backend)
    assert list(islice(values, 70)) == list(range(70))
    with pytest.raises(OSError, match="no more"):
        next(values)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_exception_does_not_end_the_program(backend):
    with pytest.raises(af.errors.AnyfoldError, match=r"SystemExit\(4\)"):
        parallel_map(sys.exit, [4], backend=backend)


def stop_iterating(n):
    raise StopIteration


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_item_that_raises_stop_iteration_does_not_cut_the_result_short(backend):
    with pytest.raises(RuntimeError, match="StopIteration"):
        parallel_map(stop_iterating, range(3), backend=backend)


class Stuck:
    def __reduce__(self):
        raise TypeError("this cannot be pickled")


class Trap:
    """Can be pickled, and not be read again."""

    def __reduce__(self):
        return int, ("no number",)


@pytest.mark.parametrize("bad", [Stuck, Trap])
def test_an_item_that_cannot_travel_is_named(bad):
    items = [*range(300), bad(), *range(300)]
    with pytest.raises((TypeError, ValueError)) as caught:
        parallel_map(str, items, backend="multiprocessing")
    assert caught.value.__notes__[-1] == "raised by str, item 300"
    assert len(parallel_map(str, items, backend="threads")) == 601


def test_a_result_that_cannot_travel_is_named():
    def make(n):
        return Stuck() if n == 300 else n

    with pytest.raises(TypeError, match="cannot be pickled") as caught:
        parallel_map(make, range(600), backend="multiprocessing")
    assert caught.value.__notes__[-1] == "raised by make, item 300"
    assert isinstance(parallel_map(make, range(600), backend="threads")[300], Stuck)


def test_a_result_that_cannot_be_read_is_named_and_costs_no_value_before_it():
    def make(n):
        return Trap() if n == 300 else [n]

    values = parallel_map(make, range(600), return_as="generator", backend="multiprocessing")
    assert list(islice(values, 300)) == [[n] for n in range(300)]
    with pytest.raises(UnreadableResultError, match="make, item 300: what came back") as caught:
        next(values)
    assert "no number" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: af.parallel_map(3, [1]), "cannot be called"),
        (lambda: af.parallel_map(abs), "iterable"),
        (lambda: af.parallel_map(abs, 3), "cannot be iterated"),
        (lambda: af.parallel_map(abs, [1], return_as="set"), "'list', 'generator', 'generator_unordered'"),
        (lambda: af.parallel_map(abs, [1], resources={"fabs": {"gpu": 1}}), "the function is called 'abs'"),
    ],
)
def test_bad_input_is_refused_before_any_work(wrong, told):
    with pytest.raises(InvalidInputError, match=told):
        wrong()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"backend": "nope"}, "there is no backend 'nope'"),
        ({"backend": "serial", "timeout": 1}, "cannot stop work that runs"),
    ],
)
def test_what_a_generator_cannot_use_is_refused_by_the_call(settings, told):
    drawn = []
    with pytest.raises((UnknownBackendError, UnsupportedFeatureError), match=told):
        af.parallel_map(abs, map(drawn.append, [1]), return_as="generator", **settings)
    assert not drawn


def test_a_generator_has_the_configuration_of_its_call():
    with sklearn.config_context(assume_finite=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        values = af.parallel_map(look_and_warn, [0], return_as="generator", backend="serial")
    assert list(values) == [(True, "an error")]


def look_and_warn(_):
    try:
        warnings.warn("a warning", UserWarning, stacklevel=1)
    except UserWarning:
        return sklearn.get_config()["assume_finite"], "an error"
    return None


def test_the_time_of_a_generator_counts_from_its_first_value():
    parallel_map(abs, [0], backend="multiprocessing")  # so that the workers are there
    limit = time.monotonic() + 2
    values = parallel_map(abs, range(3), return_as="generator", backend="multiprocessing", time_limit=2)
    while time.monotonic() < limit + 0.1:
        time.sleep(0.01)
    assert list(values) == [0, 1, 2]


def test_a_journal_is_refused_and_one_for_all_calls_is_not_meant(tmp_path, monkeypatch):
    with pytest.raises(UnsupportedFeatureError, match=r"a map has no journal.*run no code"):
        af.parallel_map(abs, [1], journal=tmp_path / "journal")
    monkeypatch.setenv("ANYFOLD_JOURNAL", str(tmp_path / "journal"))
    assert af.parallel_map(abs, [-1], backend="serial") == [1]
    assert list(tmp_path.iterdir()) == []


# ---- faults ---------------------------------------------------------------------------------------------


def test_an_item_that_ends_its_worker_is_found_and_the_others_are_not_lost(tmp_path):
    def kill(n):
        if n == 333:
            with (tmp_path / "started").open("a") as file:
                file.write("x")
            os._exit(3)
        return n

    values = parallel_map(kill, range(1000), return_as="generator", backend="multiprocessing", retries=1)
    assert list(islice(values, 333)) == list(range(333))
    with pytest.raises(WorkerLostError, match="kill, item 333"):
        next(values)
    # Once with its group, twice by itself.
    assert len((tmp_path / "started").read_text()) <= 3


def test_an_item_whose_worker_is_lost_once_costs_nothing(tmp_path):
    def kill_once(n):
        if n == 700 and not (tmp_path / "done").exists():
            (tmp_path / "done").touch()
            os._exit(3)
        return n

    assert parallel_map(kill_once, range(1000), backend="processes") == list(range(1000))


def test_an_item_that_hangs_is_stopped_and_named():
    def hang(n):
        if n == 5:
            threading.Event().wait()
        return n

    with pytest.raises(TaskTimeoutError, match=r"hang, item 5: ran longer than timeout=0\.5 seconds"):
        parallel_map(hang, range(100), backend="multiprocessing", timeout=0.5)


def test_what_had_finished_when_time_was_over_is_in_the_error():
    def hang(n):
        if n == 2:
            threading.Event().wait()
        return n

    parallel_map(abs, [0], backend="multiprocessing")  # so that the workers are there
    with pytest.raises(TimeLimitError, match="time_limit=3 seconds") as caught:
        parallel_map(hang, range(3), backend="multiprocessing", time_limit=3)
    assert caught.value.result == {0: 0, 1: 1}


def test_a_limit_that_ends_when_all_items_have_finished_is_kept(tmp_path):
    def note(n):
        (tmp_path / str(n)).touch()
        return n

    parallel_map(note, [0], backend="multiprocessing")  # so that the workers are there
    limit = time.monotonic() + 2
    values = parallel_map(note, iter([1, 2]), return_as="generator", backend="multiprocessing", time_limit=2)
    assert next(values) == 1
    while not (tmp_path / "2").exists() or time.monotonic() < limit + 0.1:
        time.sleep(0.01)
    assert list(values) == [2]


@pytest.mark.parametrize("n_known", [None, 6])
def test_whether_there_is_more_is_asked_of_the_items(n_known):
    returned = Returned(None, ordered=True)
    items = Items("f", iter(range(6)), n_known, 1, returned, packed=False, alone=False, ahead=None)
    supply = Supply(items, 6, {}, returned, lambda key: key.fold, asked=items.has_more)
    assert supply.has_more()
    units = [supply.take(1) for _ in range(4)]
    assert sum(len(group.items) for unit in units for group in unit) == 6
    (group,) = units[0]
    assert not supply.has_more()
    returned[group.key] = Outcome(group.key, n_items=1)
    assert supply.has_more()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupt_has_what_had_finished(backend):
    def interrupt(event):
        if isinstance(event, TaskFinished) and event.outcome.key.fold > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        parallel_map(abs, range(100_000), backend=backend, callbacks=[interrupt])
    result = caught.value.result
    assert 10 < len(result) < 100_000
    assert all(index == value for index, value in result.items())


# ---- identity -------------------------------------------------------------------------------------------


def draw(n):
    return random.random(), np.random.rand(), af.parallel_map(draw_inside, [0])[0]


def draw_inside(n):
    return random.random()


def test_numbers_drawn_depend_on_the_seed_and_the_item_alone():
    serial = parallel_map(draw, range(40), random_state=3, backend="serial")
    assert parallel_map(draw, range(40), random_state=3, backend="multiprocessing") == serial
    assert parallel_map(draw, range(20), random_state=3, backend="serial") == serial[:20]
    assert len({number for drawn in serial for number in drawn}) == 120
    assert parallel_map(draw, range(40), random_state=4, backend="serial") != serial


@pytest.mark.parametrize("backend", ["serial", "multiprocessing"])
def test_without_a_seed_no_two_items_draw_the_same(backend):
    before = random.getstate()
    drawn = parallel_map(draw, range(40), backend=backend)
    assert len({number for numbers in drawn for number in numbers}) == 120
    assert random.getstate() == before


def test_what_is_bound_to_the_function_is_shared_and_cannot_be_changed():
    shared = np.arange(200_000.0)

    def look(array, n):
        return array[n], array.flags.writeable, array.flags.owndata

    assert parallel_map(partial(look, shared), [1, 2], backend="multiprocessing") == [
        (1.0, False, False),
        (2.0, False, False),
    ]


def test_a_function_that_writes_to_what_is_bound_to_it_has_copies_of_its_own():
    def write(array, n):
        array[0] += n
        return float(array[0])

    shared = np.zeros(200_000)
    assert parallel_map(partial(write, shared), [1, 2, 3], backend="multiprocessing") == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_map_inside_a_map_runs_where_it_is(backend):
    def inside(n):
        return {os.getpid(), *af.parallel_map(lambda _: os.getpid(), range(3))}

    assert all(len(pids) == 1 for pids in parallel_map(inside, range(3), backend=backend))


# ---- what is said ---------------------------------------------------------------------------------------


def talk(n):
    if n % 400 == 3:
        print("hello")
        logging.getLogger("talk").warning("careful")
        warnings.warn("mind", UserWarning, stacklevel=1)
    return n


@pytest.mark.parametrize("backend", ["threads", "multiprocessing"])
def test_what_items_say_is_said_again_with_their_names(backend, capsys, caplog):
    with pytest.warns(UserWarning, match=r"mind\n\[talk, items 3, 403, 803\]"):
        parallel_map(talk, range(1000), backend=backend)
    names = ["talk, item 3", "talk, item 403", "talk, item 803"]
    assert capsys.readouterr().out.splitlines() == [f"[{name}] hello" for name in names]
    assert [record.getMessage() for record in caplog.records] == [f"[{name}] careful" for name in names]


@pytest.mark.parametrize("backend", BACKENDS)
def test_callbacks_hear_of_all_items(backend):
    events = []
    parallel_map(abs, range(1000), backend=backend, callbacks=[events.append])
    assert [event.n_tasks for event in events if isinstance(event, RunStarted)] == [1000]
    finished = [event.outcome for event in events if isinstance(event, TaskFinished)]
    assert sum(outcome.n_items for outcome in finished) == 1000
    assert len(finished) < 500  # they were grouped


@pytest.mark.parametrize("backend", BACKENDS)
def test_callbacks_hear_why_an_item_has_failed(backend):
    heard = []
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda n: 1 // n, [1, 0], backend=backend, callbacks=[heard.append])
    failures = [event.outcome.failure for event in heard if isinstance(event, TaskFinished)]
    (failure,) = filter(None, failures)
    assert failure.message == "integer division or modulo by zero"
    assert "in <lambda>" in failure.traceback


def test_callbacks_hear_of_an_item_that_cannot_be_sent():
    heard = []
    with pytest.raises(TypeError, match="cannot be pickled"):
        parallel_map(str, [1, Stuck(), 3], backend="multiprocessing", callbacks=[heard.append])
    outcomes = {event.outcome.key.fold: event.outcome for event in heard if isinstance(event, TaskFinished)}
    assert outcomes[1].failure.type_name == "TypeError"
    assert 2 not in outcomes


def test_how_many_items_a_generator_has_is_not_known():
    events = []
    parallel_map(abs, iter(range(3)), backend="serial", progress=True, callbacks=[events.append])
    assert [event.n_tasks for event in events if isinstance(event, RunStarted)] == [None]


def test_settings_come_from_the_context():
    with af.config_context(backend="threads", n_jobs=2):
        assert af.parallel_map(lambda _: threading.current_thread().name, [0])[0].startswith("anyfold")


def test_a_callable_that_answers_to_every_name_is_called_like_any_other():
    assert af.parallel_map(Mock(return_value=3), [1, 2], backend="serial") == [3, 3]
