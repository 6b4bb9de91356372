"""What a user can import, and what importing costs."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest
from numpydoc.docscrape import NumpyDocString

import anyfold


def test_every_public_name_exists_and_says_what_it_is():
    for name in anyfold.__all__:
        assert getattr(anyfold, name).__doc__ or name == "__version__", name


def _members(module):
    """Public functions and classes of a module."""
    for name in module.__all__:
        member = getattr(module, name)
        if inspect.isfunction(member) or inspect.isclass(member):
            yield f"{module.__name__}.{name}", member


def test_every_public_name_has_an_example_that_the_doctests_run():
    members = [*_members(anyfold)]
    for module in ("executors", "model_selection", "testing"):
        members += _members(import_module(f"anyfold.{module}"))
    without = {name for name, member in members if ">>>" not in (member.__doc__ or "")}
    assert without == set()
    assert ">>>" in anyfold.errors.__doc__
    for name, member in members:
        assert NumpyDocString(inspect.getdoc(member))["Examples"], name  # raises where a section comes twice


def test_dir_shows_exactly_the_public_names():
    assert set(dir(anyfold)) == set(anyfold.__all__)


def test_every_lazy_name_is_public():
    assert set(anyfold._HOMES) | {"errors", "__version__"} == set(anyfold.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'run_cvs'"):
        _ = anyfold.run_cvs


@pytest.mark.parametrize(
    "package", ["ray", "distributed", "dask", "matplotlib", "pandas", "rich", "pydantic", "sklearn", "loky"]
)
def test_importing_anyfold_imports_nothing_heavy(package):
    code = f"import sys, anyfold; sys.exit({package!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", ["ray", "distributed", "matplotlib", "polars"])
def test_run_cv_imports_nothing_that_it_does_not_need(package):
    code = f"import sys, anyfold; anyfold.run_cv, anyfold.get_executor; sys.exit({package!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
