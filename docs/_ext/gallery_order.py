"""In which order the gallery tells its stories, and what each of them starts from."""

import os
import tempfile
from pathlib import Path
from typing import Any

ORDER = (
    "compare_models",
    "same_numbers_everywhere",
    "when_parallel_pays",
    "book_sales",
    "seven_sensors",
    "shared_steps",
    "your_own",
    "log_events",
)


def by_story(filename: str) -> int:
    """Return the place of an example; one that is not listed is an error."""
    return ORDER.index(Path(filename).stem)


def arguments(gallery_conf: Any, script_vars: Any) -> list[str]:
    """Return the command line of an example: a file that it may write to."""
    writes = Path(script_vars["src_file"]).stem == "log_events"
    return [f"{tempfile.mkdtemp()}/events.jsonl"] if writes else []


def only_these_settings(gallery_conf: Any, fname: str) -> None:
    """Let no example change the settings of the next, nor the shell those of any."""
    import anyfold

    anyfold.set_config(reset=True)
    anyfold.shutdown()
    for variable in [name for name in os.environ if name.startswith("ANYFOLD_")]:
        del os.environ[variable]
