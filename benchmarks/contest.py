"""Runs contenders side by side: the same work, taking turns, and compares their times round by round."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("anyfold", "scikit-learn", "numpy", "joblib", "loky", "ray", "distributed", "dask-ml")


@dataclass
class Contender:
    """One way to do the work."""

    name: str
    run: Callable[[], Any]
    """Does the work once and returns what came of it."""
    ours: bool = False
    seconds: list[float] = field(default_factory=list)
    cold: float | None = None
    """Seconds of the first run, with the start of workers and imports."""
    failed: str | None = None


@dataclass
class Contest:
    """A workload and its contenders.

    Parameters
    ----------
    name : str
        Of the workload.
    contenders : sequence of Contender
        Each does the same work.
    target : float, optional
        The ratio of our time to the fastest peer's that is aimed at.
    same : callable, optional
        Compares what two contenders returned; by default it is not compared.
    tells_seconds : bool, default=False
        Whether what a contender returns is what counts, not how long it took to return.
    remark : str, optional
        What the page of the manual says of the figures.
    against : str, optional
        The peer that ratios are to; by default the fastest.
    """

    name: str
    contenders: Sequence[Contender]
    target: float | None = None
    same: Callable[[Any, Any], bool] | None = None
    tells_seconds: bool = False
    remark: str = ""
    against: str | None = None

    def hold(self, rounds: int) -> dict[str, Any]:
        """Run everybody once cold, then in turns; return the figures."""
        first: Any = None
        for contender in self.contenders:
            result, contender.cold = self._timed(contender)
            if contender.failed:
                continue
            if first is None:
                first = result
            elif self.same is not None and not self.same(first, result):
                contender.failed = "other numbers"
        alive = [contender for contender in self.contenders if not contender.failed]
        for number in range(rounds):
            for contender in alive if number % 2 == 0 else alive[::-1]:
                contender.seconds.append(self._timed(contender)[1])
        return self._figures(alive)

    def _timed(self, contender: Contender) -> tuple[Any, float]:
        begun = time.perf_counter()
        try:
            result = contender.run()
        except Exception as error:
            contender.failed = f"{type(error).__name__}: {error}"[:200]
            return None, time.perf_counter() - begun
        return result, result if self.tells_seconds else time.perf_counter() - begun

    def _figures(self, alive: list[Contender]) -> dict[str, Any]:
        peers = [each for each in alive if not each.ours and self.against in (None, each.name)]
        best = min(peers, key=lambda peer: statistics.median(peer.seconds)) if peers else None
        rows = []
        for contender in self.contenders:
            row: dict[str, Any] = {
                "contender": contender.name,
                "cold": contender.cold,
                "ours": contender.ours,
            }
            if contender.failed:
                row["failed"] = contender.failed
            else:
                row["median"] = statistics.median(contender.seconds)
                if best is not None:
                    pairs = zip(contender.seconds, best.seconds, strict=True)
                    row["ratio"] = statistics.median(own / theirs for own, theirs in pairs)
            rows.append(row)
        return {
            "workload": self.name,
            "target": self.target,
            "remark": self.remark,
            "rounds": max((len(contender.seconds) for contender in alive), default=0),
            "peer": None if best is None else best.name,
            "rows": rows,
        }


def describe_machine() -> dict[str, Any]:
    """Return what figures depend on."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        **packages,
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures of one workload as a table."""
    target = "" if figures["target"] is None else f", target {figures['target']}"
    print(f"\n{figures['workload']} (ratio to {figures['peer']}{target})")
    print(f"  {'contender':<42}{'cold s':>9}{'warm s':>9}{'ratio':>8}")
    for row in figures["rows"]:
        if "failed" in row:
            print(f"  {row['contender']:<42}{row['failed']}")
        else:
            ratio = f"{row['ratio']:8.2f}" if "ratio" in row else ""
            print(f"  {row['contender']:<42}{row['cold']:9.2f}{row['median']:9.2f}{ratio}")
    sys.stdout.flush()


def main(workloads: dict[str, Callable[[], Contest]], description: str | None) -> None:
    """Hold the contests that the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("workload", nargs="*", metavar="workload", help="which; by default all")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each contender")
    parser.add_argument("--json", help="a file that the figures are written to")
    options = parser.parse_args()
    machine = describe_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items() if value is not None))
    all_figures = []
    for name in options.workload or workloads:
        figures = workloads[name]().hold(options.rounds)
        show(figures)
        all_figures.append(figures)
        if options.json:  # after each: what has been measured is kept whatever comes
            told = {"machine": machine, "contests": all_figures}
            Path(options.json).write_text(json.dumps(told, indent=1), encoding="utf-8")
