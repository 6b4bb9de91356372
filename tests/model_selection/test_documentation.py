"""What the page on searches says is so."""

import re
from pathlib import Path

import anyfold

PAGE = (Path(__file__).parents[2] / "docs" / "searches.md").read_text()


def test_the_example_saves_what_the_page_says():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    namespace = {}
    with anyfold.config_context(backend="multiprocessing"):  # what begins in the caller may share less
        exec(block, namespace)
    assert f"n_shared_fits_  # up to {namespace['search'].n_shared_fits_} of the 60 fits" in block
