"""Which room may import which: what docs/architecture.md says, read from the sources."""

import ast
from pathlib import Path

import pytest

import anyfold
from anyfold._worker.calls import Calls
from anyfold._worker.cross_validate import CrossValidation
from anyfold._worker.execute import SharesSteps
from anyfold._worker.fits import Fits
from anyfold._worker.mapping import Mapped
from anyfold._worker.predictions import Predictions

HOUSE = Path(anyfold.__file__).parent
ROOMS = {
    "_plan": {"_plan", "_data", "_compat", "_version", "errors"},
    "_mail": {"_mail", "_plan", "errors"},
    "_data": {"_data", "_compat", "errors"},
    "_worker": {"_worker", "_mail", "_data", "_plan", "_compat", "errors", "executors.base"},
    "_engine": {"_engine", "_worker", "_mail", "_data", "_plan", "_version", "errors", "executors.base"},
    "executors": {"executors", "_worker", "_mail", "_data", "errors", "settings"},
    "results": {"results", "_plan", "_data", "_version", "errors"},
}
BACKENDS = ("serial", "threads", "processes", "multiprocessing", "loky", "joblib", "dask", "ray")


def imports_of(path):
    """Modules of anyfold that a file imports, also only for its types, without the package's name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "anyfold":
            if node.module == "anyfold":
                yield from (alias.name for alias in node.names)
            else:
                yield node.module.removeprefix("anyfold.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("anyfold."):
                    yield alias.name.removeprefix("anyfold.")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room):
    files = sorted((HOUSE / room).glob("*.py"))
    assert files
    wrong = [
        f"{path.name} imports {module}"
        for path in files
        for module in imports_of(path)
        if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in ROOMS[room])
    ]
    assert not wrong


@pytest.mark.parametrize("work", [Calls, Fits, Mapped, Predictions])
def test_work_without_steps_in_common_knows_nothing_of_them(work):
    assert not {"fit_stem", "take_stem"} & set(dir(work))
    assert issubclass(CrossValidation, SharesSteps)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_backend_imports_another(backend):
    own = HOUSE / "executors" / f"{backend}.py"
    others = {f"executors.{other}" for other in BACKENDS if other != backend}
    assert not others.intersection(imports_of(own))
