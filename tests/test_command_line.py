"""The command line as a whole, and ``anyfold bench``: figures, chart, refusals."""

import json
import math
import os
import subprocess
import sys

import pytest

from anyfold import __main__
from anyfold._commands import bench, measure
from anyfold._commands.bench import break_even, summarized


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: COMMAND"),
        (["benhc"], "invalid choice: 'benhc'"),
        (["bench", "--what"], "unrecognized arguments: --what"),
        (["bench", "--backends", "loki"], "there is no backend 'loki'; did you mean 'loky'"),
        (["bench", "--backends", ","], "names none; there are "),
        (["bench", "--n-jobs", "0"], "n_jobs=0 is not valid"),
        (["bench", "--chart", "chart.doc"], "the name must end in one of "),
        (["bench", "--chart", "nowhere/chart.png"], "cannot be written"),
        (["check", "loki"], "there is no backend 'loki'"),
    ],
)
def test_what_cannot_be_used_is_said_and_ends_with_status_2(arguments, complaint, capsys):
    try:
        status = __main__.main(arguments)
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert complaint in err


def test_help_names_every_command_and_each_has_its_own(capsys):
    for arguments, words in [
        ([], ["doctor", "check", "bench", "journal"]),
        (["bench"], ["--chart", "medians"]),
    ]:
        with pytest.raises(SystemExit, match="0"):
            __main__.main([*arguments, "--help"])
        out = capsys.readouterr().out
        assert all(word in out for word in words)


def test_a_reader_that_goes_early_costs_no_traceback():
    command = f"{sys.executable} -m anyfold doctor | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


# ---- bench ---------------------------------------------------------------------------------------


def figures(workers=2, start=1.0, few=0.064, per_task=0.001, data=0.42, no_data=0.1, **runs):
    many = few + (measure.MANY - 1) * measure.N_TASKS * per_task
    times = {"few": few, "many": many, "data": data, "no_data": no_data, "start": start}
    # The median is neither the first nor the mean.
    measured = {name: [time * 3, time, time / 2] for name, time in times.items()}
    return {
        "workers": workers,
        **measured,
        "runs": {length[1:]: [9.0, time, 0.0] for length, time in runs.items()},
    }


def test_figures_are_medians_of_differences():
    serial = figures(_0=1.0, _1=4.0)
    row = summarized("loky", figures(start=3.0, _0=4.0, _1=1.0), serial)
    assert row.start == 3.0
    assert row.per_task == pytest.approx(0.001)
    assert row.per_megabyte == pytest.approx(0.01)
    assert row.speedups == {"0": 0.25, "1": 4.0}
    assert row.faster_from == 0.5
    assert row.pays_from == 4.0  # of these three seconds are saved, which is the start


def test_a_backend_that_is_never_faster_never_pays():
    row = summarized("ray", figures(_0=2.0, _1=2.0), figures(_0=1.0, _1=1.0))
    assert (row.faster_from, row.pays_from) == (math.inf, math.inf)
    serial = summarized("serial", figures(_0=1.0), figures(_0=1.0))
    assert (serial.faster_from, serial.pays_from) == (None, None)


def test_only_a_length_after_which_all_are_faster_counts():
    assert break_even({0.0: 2.0, 1.0: 0.5, 2.0: 2.0, 3.0: 4.0}) == 1.5


def test_a_backend_that_cannot_be_measured_is_named(monkeypatch, capsys):
    monkeypatch.setattr(bench, "_measured", lambda name, n_jobs, quick: {"error": f"{name} is broken"})
    assert __main__.main(["bench", "--backends", "loky"]) == 1
    assert "loky: could not be measured: loky is broken" in capsys.readouterr().out


def test_where_serial_cannot_be_measured_it_is_said(monkeypatch, capsys, tmp_path):
    def measured(name, n_jobs, quick):
        return {"error": "out of luck"} if name == "serial" else figures(_0=1.0)

    monkeypatch.setattr(bench, "_measured", measured)
    chart = str(tmp_path / "chart.png")
    assert __main__.main(["bench", "--backends", "loky", "--chart", chart]) == 1
    out = capsys.readouterr().out
    assert "serial could not be measured, so that nothing is compared with it: out of luck" in out
    assert "the chart" not in out
    assert not list(tmp_path.iterdir())
    assert __main__.main(["bench", "--backends", "loky", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["serial_error"] == "out of luck"


def test_nothing_is_measured_again_when_the_time_is_over():
    asked = {"backend": "serial", "n_jobs": 1, "lengths": [0.0]}
    once = measure.measure(**asked, repeats=3, seconds=0.0)
    assert {len(once[name]) for name in ("start", "few", "many", "no_data", "data")} == {1}
    assert len(measure.measure(**asked, repeats=2, seconds=math.inf)["runs"]["0.0"]) == 2


def test_a_process_that_fails_tells_its_error(monkeypatch):
    monkeypatch.setattr(measure, "LENGTHS", ())
    monkeypatch.setenv("PYTHONPATH", os.devnull, prepend=os.pathsep)
    answer = bench._measured("no such backend", 1, quick=True)
    assert "UnknownBackendError: there is no backend 'no such backend'" in answer["error"]


def test_backends_are_measured_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "LENGTHS", (0.0, 0.001, 0.002))
    monkeypatch.setenv("ANYFOLD_JOURNAL", str(tmp_path / "journal.sqlite"))
    chart = tmp_path / "chart.png"
    arguments = [
        "bench",
        "--quick",
        "--backends",
        "threads",
        "--n-jobs",
        "2",
        "--json",
        "--chart",
        str(chart),
    ]
    assert __main__.main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = told["backends"]
    assert (row["backend"], row["workers"], row["error"]) == ("threads", 2, None)
    assert set(row["speedups"]) == {"0.0", "0.002"}
    # 64 tasks of 2 ms take two threads 64 ms at the least.
    assert row["measured"]["runs"]["0.002"][0] >= 0.064
    assert [entry.name for entry in tmp_path.iterdir()] == ["chart.png"]
    assert chart.read_bytes().startswith(b"\x89PNG")
