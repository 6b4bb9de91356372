"""The README says what is true."""

import os
import re
import subprocess
import sys
from pathlib import Path

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
        return sorted(" ".join(re.sub(r"\d+\.\d+|\d+", "#", line).split()) for line in text.splitlines())

    assert form(printed) == form(table)


def test_the_code_for_the_one_call_runs():
    namespace = {}
    first, _, _ = blocks("python")
    exec(compile(first, "README.md", "exec"), namespace)
    assert list(namespace["result"]) == ["logit", "rf"]
