"""What ran where and when: the picture of a run's lanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyfold._plan.task import Outcome, Place
from anyfold.results.figures import INK, model_colors, new_axes
from anyfold.results.names import elided, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Timeline", "plot_timeline", "timeline_of"]

Color = tuple[float, float, float]

IDLE = "#eeeeee"
LANE_HEIGHT = 0.72
LONGEST_LABEL = 30
LONG_TAIL = 0.1
"""Share of the whole time."""
MOST_LANE_LABELS = 48
MOST_LEGEND_ENTRIES = 40


@dataclass(frozen=True, slots=True)
class Timeline:
    """Tasks by the worker that ran them, in seconds from the start of the first.

    Attributes
    ----------
    lanes : tuple of (Place, tuple of Outcome)
        By host and by when each worker started; tasks in the order in which they ran.
    start : float
        When the first task started, in seconds since the epoch.
    duration : float
        Seconds from the start of the first task to the end of the last.
    busy : float
        Seconds of all tasks together.
    n_unplaced : int
        Tasks of which it is not known where and when they ran.
    tail : float
        Seconds at the end in which at most half of the workers had anything left to do.
    """

    lanes: tuple[tuple[Place, tuple[Outcome, ...]], ...]
    start: float
    duration: float
    busy: float
    n_unplaced: int
    tail: float

    @property
    def last(self) -> Outcome:
        """The task that ended last."""
        return max((tasks[-1] for _, tasks in self.lanes), key=lambda outcome: outcome.ended)

    @property
    def has_straggler(self) -> bool:
        """Whether a good part of the time went by while others waited for the last tasks."""
        return len(self.lanes) > 1 and self.tail > LONG_TAIL * self.duration


def timeline_of(outcomes: Sequence[Outcome]) -> Timeline:
    """Sort outcomes into lanes, whatever the order in which they came.

    Examples
    --------
    >>> from anyfold._plan.task import TaskKey
    >>> here = Place("host", 7, "MainThread")
    >>> timeline = timeline_of([Outcome(TaskKey("rf", 0, 0), place=here, started=10.0, ended=12.5)])
    >>> len(timeline.lanes), timeline.duration
    (1, 2.5)
    """
    lanes: dict[Place, list[Outcome]] = {}
    n_unplaced = 0
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.started, outcome.key)):
        if outcome.place is None or outcome.started <= 0:
            n_unplaced += 1
        else:
            lanes.setdefault(outcome.place, []).append(outcome)
    drawn = [outcome for lane in lanes.values() for outcome in lane]
    start = min((outcome.started for outcome in drawn), default=0.0)
    end = max((outcome.ended for outcome in drawn), default=0.0)
    by_worker = sorted(
        lanes.items(), key=lambda lane: (lane[0].host, lane[1][0].started, lane[0].pid, lane[0].thread)
    )
    ends = sorted(tasks[-1].ended for tasks in lanes.values())
    return Timeline(
        lanes=tuple((place, tuple(tasks)) for place, tasks in by_worker),
        start=start,
        duration=end - start,
        busy=sum(outcome.ended - outcome.started for outcome in drawn),
        n_unplaced=n_unplaced,
        tail=end - ends[(len(ends) - 1) // 2] if ends else 0.0,
    )


def plot_timeline(outcomes: Sequence[Outcome], models: Sequence[str], ax: Axes | None) -> Axes:
    """Draw one lane per worker and one bar per task.

    Parameters
    ----------
    outcomes : sequence of Outcome
        What became of the tasks.
    models : sequence of str
        Names of the models, in the order of the legend.
    ax : Axes or None
        Where to draw; None makes a figure of its own.

    Returns
    -------
    Axes
        What was drawn on.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    timeline = timeline_of(outcomes)
    n_lanes = len(timeline.lanes)
    if ax is None:
        rows = max(n_lanes, 0.8 * min(len(models), MOST_LEGEND_ENTRIES) + 2, 3)
        ax = new_axes(width=9.0, height=min(1.3 + 0.3 * rows, 14.0))
    from matplotlib.patches import Patch

    colors = dict(zip(models, model_colors(len(models)), strict=True))
    ax.barh(range(n_lanes), [timeline.duration] * n_lanes, height=LANE_HEIGHT, color=IDLE, zorder=1)
    _draw_tasks(ax, timeline, colors)
    if timeline.has_straggler:
        _mark_straggler(ax, timeline)

    step = -(-n_lanes // MOST_LANE_LABELS) or 1
    lanes = _lane_labels([place for place, _ in timeline.lanes])
    ax.set_yticks(range(0, n_lanes, step), lanes[::step], fontsize="small")
    ax.set_ylim(max(n_lanes, 1) - 0.5, -0.5)
    ax.set_xlim(0, timeline.duration or 1.0)
    ax.set_xlabel("seconds from the start of the first task")
    ax.set_title(_title(timeline), loc="left")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)

    shown = models[:MOST_LEGEND_ENTRIES]
    labels = zip(shown, shortened(shown, LONGEST_LABEL), strict=True)
    entries = [Patch(facecolor=colors[model], label=label) for model, label in labels]
    if len(models) > len(shown):
        entries.append(Patch(facecolor="none", label=f"… and {len(models) - len(shown)} more"))
    if any(task.failure is not None for _, tasks in timeline.lanes for task in tasks):
        entries.append(Patch(facecolor="white", edgecolor=INK, hatch="////", label="failed"))
    entries.append(Patch(facecolor=IDLE, label="idle"))
    ax.legend(
        handles=entries,
        title="model (number: fold)",
        title_fontsize="small",
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        borderaxespad=0,
        fontsize="small",
        handlelength=1.2,
    )
    return ax


def _draw_tasks(ax: Axes, timeline: Timeline, colors: Mapping[str, Color]) -> None:
    tasks = [(lane, task) for lane, (_, lane_tasks) in enumerate(timeline.lanes) for task in lane_tasks]
    lefts = [task.started - timeline.start for _, task in tasks]
    widths = [task.ended - task.started for _, task in tasks]
    fills = [colors[task.key.model] for _, task in tasks]
    failed = [task.failure is not None for _, task in tasks]
    # The legend takes its part of the width when the figure is laid out: about a quarter.
    points = 0.75 * ax.get_window_extent().width / ax.figure.dpi * 72 / (timeline.duration or 1.0)
    ax.barh(
        [lane for lane, _ in tasks],
        widths,
        left=lefts,
        height=LANE_HEIGHT,
        color=fills,
        edgecolor=[
            _readable_on(fill) if fails else "white" for fill, fails in zip(fills, failed, strict=True)
        ],
        linewidth=[0.6 if width * points > 3 else 0.0 for width in widths],
        hatch=["////" if fails else "" for fails in failed],
        zorder=2,
    )
    for (lane, task), left, width, fill, fails in zip(tasks, lefts, widths, fills, failed, strict=True):
        label = str(task.key.fold)
        if width * points > 6.5 * len(label) + 4:
            ax.text(
                left + width / 2,
                lane,
                label,
                horizontalalignment="center",
                verticalalignment="center_baseline",
                fontsize="x-small",
                color=_readable_on(fill),
                bbox={"facecolor": fill, "linewidth": 0, "pad": 1.5} if fails else None,
                zorder=3,
            )


def _mark_straggler(ax: Axes, timeline: Timeline) -> None:
    """Show from when on others waited, and for which task."""
    from matplotlib.patches import Rectangle

    last = timeline.last
    (lane,) = (lane for lane, (_, tasks) in enumerate(timeline.lanes) if tasks[-1] is last)
    ax.axvline(timeline.duration - timeline.tail, color=INK, linestyle="--", linewidth=1.2, zorder=4)
    ax.add_patch(
        Rectangle(
            (last.started - timeline.start, lane - LANE_HEIGHT / 2),
            last.ended - last.started,
            LANE_HEIGHT,
            fill=False,
            edgecolor=INK,
            linewidth=2.5,
            zorder=4,
        )
    )


def _readable_on(color: Color) -> str:
    red, green, blue = color
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else INK


def _lane_labels(places: Sequence[Place]) -> list[str]:
    """Name lanes by no more than what tells them apart."""
    many_hosts = len({place.host for place in places}) > 1
    many_threads = len({(place.host, place.pid) for place in places}) < len(places)
    return [
        " · ".join(
            [elided(place.host, LONGEST_LABEL)] * many_hosts
            + [f"pid {place.pid}"]
            + [elided(place.thread, LONGEST_LABEL)] * many_threads
        )
        for place in places
    ]


def _title(timeline: Timeline) -> str:
    n_lanes = len(timeline.lanes)
    n_tasks = sum(len(tasks) for _, tasks in timeline.lanes)
    title = f"{n_tasks} task{'s' * (n_tasks != 1)} on {n_lanes} worker{'s' * (n_lanes != 1)}"
    if timeline.duration > 0:
        title += f", {timeline.busy / (timeline.duration * n_lanes):.0%} busy"
    if timeline.has_straggler:
        key = timeline.last.key
        name = elided(key.model, LONGEST_LABEL)
        title += f"\nhalf of the workers idle in the last {timeline.tail:.3g} s, till {name}, fold {key.fold}"
    if timeline.n_unplaced:
        title += f" ({timeline.n_unplaced} more: unknown where)"
    return title
