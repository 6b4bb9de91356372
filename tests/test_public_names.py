"""What a user can import, and what importing costs."""

import subprocess
import sys

import pytest

import anyfold


def test_every_public_name_exists_and_says_what_it_is():
    for name in anyfold.__all__:
        assert getattr(anyfold, name).__doc__ or name == "__version__", name


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
