"""What the pages of the manual say is so: their code runs, and what they name exists."""

import contextlib
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from docs.make_tables import settings_page

import anyfold
from anyfold import model_selection
from anyfold._settings.fields import ProgramSettings, settings_of, variable_of
from anyfold.executors._expected import DASK_VARIABLE, RAY_VARIABLES
from anyfold.executors.registry import AUTO, BACKENDS

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES["README"] = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
TRIED_ELSEWHERE = {"README", "searches", "write_a_backend"}
"""Pages that have tests of their own, in tests/test_readme.py, tests/model_selection and tests/testing."""


def blocks(page, *languages):
    return [code for language, code in BLOCK.findall(PAGES[page]) if language in languages]


def form(text):
    """Reduce what was printed to what depends neither on versions of libraries nor on the machine."""
    # Numbers and their units do, and the order of rows on the numbers.
    quantity = re.compile(r"\d+(\.\d+)?( (s|ms|bytes|kB|MB|GB)\b)?")
    return sorted(" ".join(quantity.sub("#", line).split()) for line in text.splitlines())


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """What a reader of any page has: a folder, and the names of the first block of the page to start with."""
    names = {"__name__": "__main__"}
    # One folder for all pages: warm workers are not used again where the working directory is another.
    with contextlib.chdir(tmp_path_factory.mktemp("reader")), anyfold.config_context(n_jobs=2):
        exec(blocks("getting_started", "python")[0], names)
        yield names


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python") and page not in TRIED_ELSEWHERE]
)
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(page, known, capsys):
    names, printed = dict(known), ""
    for language, code in BLOCK.findall(PAGES[page]):
        if language == "python":
            capsys.readouterr()
            exec(compile(code, f"{page}.md", "exec"), names)
            printed = capsys.readouterr().out
        elif language == "text" and printed:
            assert form(printed) == form(code)
            printed = ""


def test_commands_and_files_of_other_kinds_are_well_formed():
    for page in PAGES:
        for shell in blocks(page, "sh", "shell"):
            done = subprocess.run(["bash", "-n"], input=shell, text=True, capture_output=True, check=False)
            assert done.stderr == "", page
        for file in blocks(page, "toml"):
            assert tomllib.loads(file), page


def test_the_table_of_settings_says_what_the_settings_are():
    written = (ROOT / "docs/settings.md").read_text()
    assert written == settings_page(written), "run python docs/make_tables.py settings"
    assert all(f"\n| `{name}` |" in written for name in settings_of(ProgramSettings))


def test_the_pages_and_examples_name_only_backends_that_exist():
    made_there = {"counting", "mine", "anyfold"}  # the last one is what joblib calls anyfold
    texts = [*PAGES.values(), *(path.read_text() for path in (ROOT / "examples").glob("*.py"))]
    named = re.compile(r"""\b(?:backend|executor)=["'](\w[\w-]*)["']|get_executor\(["'](\w[\w-]*)["']""")
    found = {one or other for text in texts for one, other in named.findall(text)}
    found |= {name for text in texts for name in re.findall(r"\bANYFOLD_BACKEND=(\w+)", text)}
    assert {"threads", "ray"} <= found
    assert found <= {*BACKENDS, AUTO} | made_there


def test_the_pages_name_only_variables_that_exist():
    exist = {variable_of(name) for name in settings_of(ProgramSettings)} | {DASK_VARIABLE, *RAY_VARIABLES}
    named = {name for text in PAGES.values() for name in re.findall(r"\bANYFOLD_[A-Z_]*[A-Z]", text)}
    assert named <= exist


def test_the_pages_name_only_names_that_exist():
    named = {name for text in PAGES.values() for name in re.findall(r"\b(?:af|anyfold)\.(\w+)\(", text)}
    assert named <= set(anyfold.__all__) | {"backends"}


def test_every_public_name_has_an_entry_in_the_reference():
    reference = (ROOT / "docs" / "api.rst").read_text()
    entries = set(re.findall(r"^   (\w+)$", reference, re.MULTILINE))
    in_pages_of_their_own = {"__version__", "errors"}
    assert {*anyfold.__all__, *model_selection.__all__} - in_pages_of_their_own <= entries


def test_the_pages_name_only_commands_that_exist(capsys):
    from anyfold.__main__ import main

    commands = {
        shlex.split(line)[3]
        for text in PAGES.values()
        for line in re.findall(r"python -m anyfold [a-z]+", text)
    }
    assert commands
    for command in commands:
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
