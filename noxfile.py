"""Everything that is checked: ``nox -s tests``, ``lowest``, ``drop_in``, ``lint``, ``types``, ``docs``."""

import os

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "lint", "types"]

PROJECT = nox.project.load_toml("pyproject.toml")
PLUGIN = "./tests/plugin_package"
"""A third party's backend, found by its entry point."""
SIDE_BY_SIDE = ("-n", "3", "--no-loadscope-reorder")
"""For two cores: a third of the time tests wait. Which stay together, and when, tests/conftest.py says."""


OF_THAT_TIME = "scipy<1.15"
"""What the lowest scikit-learn brings along; it warns of what newer ones deprecate."""


def group(name: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, name)


def lowest(requirements: list[str]) -> list[str]:
    return [requirement.replace(">=", "==") for requirement in requirements]


@nox.session
def tests(session: nox.Session) -> None:
    """All tests and the examples in docstrings, on the newest versions."""
    session.install("--quiet", ".[all]", PLUGIN, *group("test"))
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *session.posargs)


@nox.session(name="lowest")
def on_lowest_versions(session: nox.Session) -> None:
    """All tests on the lowest stated versions of what anyfold depends on."""
    stated = PROJECT["project"]
    extras = stated["optional-dependencies"]
    needed = stated["dependencies"] + extras["plot"] + extras["dask"] + extras["ray"]
    session.install("--quiet", ".[all]", PLUGIN, *lowest(needed + group("test")), OF_THAT_TIME)
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *session.posargs)


@nox.session
def drop_in(session: nox.Session) -> None:
    """Scikit-learn's own tests of searches and validations, with anyfold's in their place."""
    session.install("--quiet", ".", *group("test"))
    where = session.run("python", "-c", "import sklearn; print(*sklearn.__path__)", silent=True)
    names = ("test_search", "test_validation", "test_successive_halving")
    session.run(
        *("python", "-m", "pytest", "-q", "-p", "anyfold_in_place", "-p", "no:cacheprovider"),
        *("-c", os.devnull, "--import-mode=importlib", "-p", "no:warnings"),
        *(f"{str(where).strip()}/model_selection/tests/{name}.py" for name in names),
        *session.posargs,
        env={"ANYFOLD_BACKEND": "serial", "PYTHONPATH": "tests/with_scikit_learn"},
    )


@nox.session
def docs(session: nox.Session) -> None:
    """The manual, with the examples run and their pictures: docs/_build/html/index.html."""
    session.install("--quiet", ".[all]", *group("docs"))
    session.run(
        *("sphinx-build", "-W", "--keep-going", "-q", "-E", "docs", "docs/_build/html"), *session.posargs
    )


@nox.session
def bench(session: nox.Session) -> None:
    """All contests with the peers, and the page of the manual that shows them; takes an hour."""
    session.install("--quiet", ".[all]", *group("bench"))
    session.chdir("benchmarks")
    os.makedirs("figures", exist_ok=True)  # noqa: PTH103 - the one file
    for name in ("engine", "auto", "large_data", "grid_search", "mapping"):
        session.run("python", f"{name}.py", "--json", f"figures/{name}.json", *session.posargs)
    session.run("python", "report.py")


@nox.session
def lint(session: nox.Session) -> None:
    """Style of the code."""
    session.install("--quiet", *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the sources and of the public API as a user writes it."""
    session.install("--quiet", ".[all]", *group("types"))
    session.run("mypy")
