"""Writes what was measured, ``figures/*.json``, into the manual: ``python report.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"

HEAD = """\
# Benchmarks

anyfold and those who do the same work, side by side in one run: each workload is one function, contenders
take turns, and a ratio is the median over the rounds of one's time to that of a peer in the same round: the
fastest one, unless the aim speaks of another. Below one is faster. *Cold* is the first run, with the start of
workers and imports. What falls short of its aim stands here as it was measured.

`nox -s bench` runs all of it and writes this page; `python benchmarks/engine.py nothing --rounds 5` runs one.

```{image} benchmarks.svg
:alt: Our time as a ratio to a peer's, per workload
```
"""


def contests() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return machine and figures of each contest that was held."""
    found = []
    for path in sorted((HERE / "figures").glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        found += [(told["machine"], contest) for contest in told["contests"]]
    return found


def table(contest: dict[str, Any]) -> str:
    """Return the rows of a contest as markdown."""
    rows = [
        f"## {contest['workload']}",
        "",
        f"| contender | cold, s | warm, s | ratio to {contest['peer']} |",
        "| --- | --- | --- | --- |",
    ]
    for row in contest["rows"]:
        if "failed" in row:
            told = row["failed"].splitlines()[0].replace("|", "/")
            rows.append(f"| {row['contender']} | failed: {told} | | |")
        else:
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
            rows.append(f"| {row['contender']} | {row['cold']:.3g} | {row['median']:.3g} | {ratio} |")
    target = contest["target"]
    told = [f"Rounds after the cold one: {contest['rounds']}."]
    told += [f"Aimed at: {target}."] if target is not None else []
    told += [contest["remark"]] if contest["remark"] else []
    return "\n".join([*rows, "", " ".join(told)])


def chart(found: list[dict[str, Any]]) -> None:
    """Draw the best of ours per workload, with its target."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    bars = []
    for contest in found:
        ours = [row["ratio"] for row in contest["rows"] if row.get("ours") and "ratio" in row]
        if ours and contest["target"] is not None:
            bars.append((contest["workload"], min(ours), contest["target"]))
    figure, axes = plt.subplots(figsize=(10, 0.6 + 0.33 * len(bars)), layout="constrained")
    for position, (_, ratio, target) in enumerate(bars):
        colour = "tab:green" if ratio <= target else "tab:orange"
        axes.barh(position, ratio, color=colour, height=0.6)
        axes.plot([target, target], [position - 0.4, position + 0.4], color="black", linewidth=2)
        axes.text(1.08 * max(ratio, target), position, f"{ratio:.2f}", va="center")
    axes.axvline(1, color="grey", linewidth=0.8, linestyle="dashed")
    axes.set(yticks=range(len(bars)), yticklabels=[name for name, *_ in bars], xscale="log")
    axes.set_xlabel("relative time (black: aim)")
    axes.set_xlim(right=8)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    figure.savefig(DOCS / "benchmarks.svg", metadata={"Date": None})


def main() -> None:
    """Write the page and its picture."""
    found = contests()
    machines = {", ".join(f"{k} {v}" for k, v in machine.items() if v is not None) for machine, _ in found}
    page = [HEAD, f"Measured on: {'; '.join(sorted(machines))}.", ""]
    page += [table(contest) + "\n" for _, contest in found]
    (DOCS / "benchmarks.md").write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")
    chart([contest for _, contest in found])


if __name__ == "__main__":
    main()
