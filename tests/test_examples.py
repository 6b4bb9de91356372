"""Examples run as they stand, and what they say about anyfold is so."""

import re
from pathlib import Path

import pytest

import anyfold as af

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "n_claims", "last"),
    [
        ("book_sales", 1, r"book-2-2 .*"),
        ("seven_sensors", 5, r"have a look at: torque"),
    ],
)
def test_an_example_tells_its_story_to_the_end(name, n_claims, last, capsys):
    path = EXAMPLES / f"{name}.py"
    with af.config_context(backend="threads", n_jobs=2):
        exec(compile(path.read_text(), str(path), "exec"), {"__name__": "__main__"})
    told = capsys.readouterr().out
    assert len(re.findall(r": True$", told, re.MULTILINE)) == n_claims
    assert "False" not in told
    assert re.fullmatch(last, told.splitlines()[-1])
