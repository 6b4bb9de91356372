"""The example in the documentation is a backend, and its page says what there is."""

import re
import sys
from pathlib import Path

import pytest
from docs.make_tables import contract_page, hostile_page, promises_page

from anyfold.testing import contract_for, run_contract

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "write_a_backend.md").read_text(), re.DOTALL)
MODULE = "my_backend"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The first block of the page as a module, as a reader would write it down."""
    (tmp_path / f"{MODULE}.py").write_text(BLOCKS[0])
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop(MODULE, None)


def test_the_example_has_fewer_than_60_lines():
    assert len(BLOCKS[0].splitlines()) < 60


def test_the_example_keeps_all_promises(example):
    results = run_contract(contract_for(f"{MODULE}:ThreadPoolOfMultiprocessing"))
    failed = [(result.name, result.reason) for result in results if not result.is_good]
    assert not failed
    assert len(results) > 70


def test_the_example_of_a_test_class_is_one(example):
    namespace = {}
    exec(BLOCKS[1], namespace)
    results = run_contract(namespace["TestMyExecutor"], tests=["test_arguments_arrive"])
    assert [result.status for result in results] == ["passed"]


def test_the_expected_failure_in_the_example_names_a_test():
    (name,) = re.findall(r'"(test_\w+)"', BLOCKS[2])
    assert any(f"`{name}`" in line for line in contract_page().splitlines())


def test_the_page_on_the_contract_is_up_to_date():
    assert (DOCS / "contract.md").read_text() == contract_page(), "run python docs/make_tables.py"


def test_the_page_on_hostile_tasks_is_up_to_date():
    assert (DOCS / "hostile_tasks.md").read_text() == hostile_page(), "run python docs/make_tables.py"


def test_the_page_on_promises_names_reasons_once():
    tests = [
        {"category": "protocol", "name": "test_a", "status": "passed", "reason": "", "notes": ["x: no y"]},
        {"category": "protocol", "name": "test_b", "status": "passed", "reason": "", "notes": ["x: no y"]},
        {"category": "data", "name": "test_c", "status": "failed", "reason": "z", "notes": []},
        {"category": "seeds", "name": "test_d", "status": "expected failure", "reason": "w", "notes": []},
    ]
    page = promises_page([{"backend": "some", "tests": tests}])
    assert page.count("x: no, because no y.") == 1
    assert "declarations say | yes (1) |" in page
    assert "let go | NO (2) |" in page
    assert "test_d: no, because w." in page
