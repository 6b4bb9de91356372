"""The README says what is true."""

import concurrent.futures
import os
import re
import subprocess
import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import anyfold as af

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_screen_has_exactly_two_commands():
    commands = [line for block in blocks("sh") for line in block.splitlines() if not line.startswith("#")]
    assert len(commands) == 2
    assert README.index(commands[1]) < README.index("## ")


def test_continuous_integration_runs_the_readmes_test_command():
    _, tests = blocks("sh")
    command = tests.splitlines()[-1]
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_table_is_of_the_form_that_the_example_prints():
    (table,) = blocks("text")
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "compare_models.py")]
    environment = {**os.environ, "MPLBACKEND": "agg"}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def form(text):
        # Numbers depend on the versions of the libraries, and the order of the rows on the numbers.
        # Where it ran depends on the machine.
        text = re.sub(r"on \w+ with \d+ workers?", "there", re.sub(r"\d+\.\d+", "#", text))
        return sorted(" ".join(re.sub(r"\d+", "#", line).split()) for line in text.splitlines())

    assert form(printed) == form(table)


def run(block, namespace):
    exec(compile(block, "README.md", "exec"), namespace)
    return namespace


def test_the_code_for_the_one_call_runs():
    first, *_ = blocks("python")
    assert list(run(first, {})["result"]) == ["logit", "rf"]


def test_the_code_of_the_other_sections_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = load_iris(return_X_y=True)
    models = {"logit": LogisticRegression(max_iter=500), "rf": RandomForestClassifier(5, random_state=0)}
    given = {
        "af": af,
        "joblib": joblib,
        "concurrent": concurrent,
        "StackingClassifier": StackingClassifier,
        "X": X,
        "y": y,
        "folds": af.Folds(X, y, cv=2),
        "models": models,
        "others": models,
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
        "grid": {"logisticregression__C": [0.1, 1]},
        "estimators": list(models.items()),
        "work": abs,
        "items": [-1, 2],
    }
    _, *rest = blocks("python")
    assert len(rest) == 3
    with af.config_context(random_state=0, backend="threads"):
        for block in rest:
            block = re.sub('"loky"|"ray"', '"threads"', block.replace("n_jobs=8", "n_jobs=2"))
            run(block, given)
    assert given["search"].best_score_ > 0.9
    assert list(given["fitted"]) == ["logit", "rf"]
