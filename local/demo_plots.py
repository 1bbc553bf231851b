"""The demo's plots, as SVG text for the page."""

from __future__ import annotations

import io
import itertools
import logging
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

    from local.demo_evidence import Draft
    from rlaas.rollout.trial import LookPoint

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # the page's reader picks the font, not this machine

CONTROL, CANDIDATE, SFT, BAD, INK, FAINT = "#64748b", "#0d9488", "#d97706", "#e11d48", "#0f172a", "#e2e8f0"
RUNNING_MEAN_OVER = 15
_STYLE: dict[RcKeyType, object] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#cbd5e1",
    "axes.labelcolor": "#475569",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#475569",
    "ytick.color": "#475569",
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean or share with its 95% interval."""

    value: float
    low: float
    high: float


def plot_reward(drafts: Sequence[Draft], colours: Mapping[str, str], weeks: Mapping[str, str]) -> str:
    """Each draft's reward in time, the running mean of each policy, and the weeks named in `weeks` (thread prefix:
    label) shaded."""
    rewarded = [draft for draft in drafts if draft.reward is not None]
    start = rewarded[0].decided_at
    with plt.rc_context({**_STYLE, "svg.hashsalt": "reward"}):
        figure, axes = plt.subplots(figsize=(9.6, 3.6), layout="constrained")
        for n, (week, label) in enumerate(weeks.items()):
            minutes = [_minutes(draft.decided_at, start) for draft in rewarded if draft.week == week]
            if minutes:
                axes.axvspan(min(minutes), max(minutes), color="#f1f5f9", zorder=0, linewidth=0)
                # Short weeks stand close together: every other label is a line higher.
                height = 1.04 + 0.07 * (n % 2)
                axes.text((min(minutes) + max(minutes)) / 2, height, label, ha="center", va="bottom", fontsize=8.5, color="#475569")
        for policy, colour in colours.items():
            points = [(_minutes(draft.decided_at, start), draft.reward) for draft in rewarded if draft.policy_id == policy]
            rewards = [reward for _, reward in points if reward is not None]
            times = [time for time, _ in points]
            axes.scatter(times, rewards, s=11, color=colour, alpha=0.35, linewidths=0)
            for first, last in _stretches(times):
                running = [statistics.fmean(rewards[max(first, i - RUNNING_MEAN_OVER + 1) : i + 1]) for i in range(first, last)]
                axes.plot(times[first:last], running, color=colour, linewidth=2.2, solid_capstyle="round")
        handles = [Line2D([], [], color=colour, linewidth=2.2, label=policy) for policy, colour in colours.items()]
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(handles))
        axes.set(ylim=(-0.03, 1.03), ylabel="reward", xlabel="minutes since the first email")
        return _svg(figure)


def plot_before_and_after(panels: Mapping[str, Mapping[str, Estimate]], colours: Mapping[str, str]) -> str:
    """One panel a measure, one bar a policy, each with its 95% interval. Bars share the axis from 0 to 1."""
    with plt.rc_context({**_STYLE, "svg.hashsalt": "bars", "axes.grid.axis": "x"}):
        figure, all_axes = plt.subplots(1, len(panels), figsize=(9.6, 0.75 + 0.42 * max(map(len, panels.values()))), layout="constrained")
        for axes, (measure, bars) in zip(all_axes, panels.items(), strict=True):
            for row, (label, estimate) in enumerate(bars.items()):
                axes.barh(row, estimate.value, height=0.56, color=colours[label])
                axes.hlines(row, estimate.low, estimate.high, color=INK, linewidth=1.3)
                axes.text(min(estimate.high + 0.02, 1.02), row, f"{estimate.value:.2f}", va="center", fontsize=9.5, fontweight="bold")
            axes.set(xlim=(0, 1.14), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=range(len(bars)), yticklabels=list(bars))
            axes.set_title(measure, fontsize=10.5, loc="left", color=INK)
            axes.invert_yaxis()
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        return _svg(figure)


def plot_rollout(drafts: Sequence[Draft], steps: Sequence[tuple[datetime, float]], colour: str) -> str:
    """The candidate's share of the traffic (0 to 1 in `steps`) from each step's time on; below it each draft as a dot,
    by arm."""
    start = drafts[0].decided_at
    with plt.rc_context({**_STYLE, "svg.hashsalt": "rollout"}):
        figure, (share, lanes) = plt.subplots(2, 1, figsize=(9.6, 3.9), height_ratios=(3, 1), sharex=True, layout="constrained")
        times = [_seconds(at, start) for at, _ in steps]
        shares = [100 * weight for _, weight in steps]
        end = max(_seconds(drafts[-1].decided_at, start), times[-1]) + 1
        share.step([*times, end], [*shares, shares[-1]], where="post", color=colour, linewidth=2.4)
        share.fill_between([*times, end], [*shares, shares[-1]], step="post", color=colour, alpha=0.12, linewidth=0)
        for time, percent in zip(times, shares, strict=True):
            share.annotate(f"{percent:.0f}%", (time, percent), xytext=(5, 5), textcoords="offset points", fontsize=9.5, fontweight="bold")
        share.set(ylim=(-4, 116), yticks=[0, 25, 50, 75, 100], ylabel="share of traffic, %")
        _arm_lanes(lanes, drafts, start, colour)
        lanes.set(xlabel="seconds since the first email of the rollout")
        return _svg(figure)


def plot_evidence(points: Sequence[LookPoint], start: datetime, threshold: float, marks: Sequence[tuple[datetime, str]]) -> str:
    """Evidence that the candidate is better and that it does harm, by seconds from `start`, and the `threshold` of both
    (dashed).

    `marks` are moments to name: when a step began, when the alarm was raised.
    """
    times = [_seconds(point.at, start) for point in points]
    lines = {
        "evidence that the candidate is better": ([point.better for point in points], CANDIDATE),
        "evidence of harm": ([point.harm for point in points], BAD),
    }
    lowest, highest = (pick([threshold, *itertools.chain(*(values for values, _ in lines.values()))]) for pick in (min, max))
    end = 1.04 * max(1.0, times[-1], *(_seconds(at, start) for at, _ in marks))
    with plt.rc_context({**_STYLE, "svg.hashsalt": f"evidence {start}"}):
        figure, axes = plt.subplots(figsize=(9.6, 3.2), layout="constrained")
        axes.set(yscale="log", ylim=(0.6 * max(lowest, 1e-3), 2.5 * highest), xlim=(0, end), ylabel="evidence")
        axes.set_xlabel("seconds since the rollout began")
        axes.yaxis.set_major_locator(LogLocator(numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e6 else f"{value:.0e}".replace("+0", "")))
        axes.axhline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        label_text, beside = f"1/alpha = {threshold:g}", _seconds(marks[0][0], start) if marks else 0.0
        axes.annotate(label_text, (beside, threshold), xytext=(5, 4), textcoords="offset points", fontsize=9.5, fontweight="bold")
        height, before = 1.02, -end
        for at, label in marks:
            time = _seconds(at, start)
            # Steps may follow each other at once: a label stands a line above the one it would meet.
            height, before = height + 0.08 if time - before < 0.07 * end else 1.02, time
            axes.axvline(time, color="#94a3b8", linewidth=1)
            axes.text(time, height, label, transform=axes.get_xaxis_transform(), ha="center", fontsize=8.5, color="#475569")
        for label, (values, colour) in lines.items():
            axes.plot(times, values, color=colour, linewidth=2.2, label=label, drawstyle="steps-post")
            axes.scatter(times[-1:], values[-1:], s=26, color=colour, zorder=3, clip_on=False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=len(lines))
        return _svg(figure)


def plot_rollback(drafts: Sequence[Draft], alarm_at: datetime, route_back_at: datetime | None, before: float, after: float) -> str:
    """Every decision from `before` to `after` seconds around the alarm, by arm; and when the route was written back."""
    near = [draft for draft in drafts if -before <= _seconds(draft.decided_at, alarm_at) <= after]
    with plt.rc_context({**_STYLE, "svg.hashsalt": "rollback"}):
        figure, axes = plt.subplots(figsize=(9.6, 2.2), layout="constrained")
        _arm_lanes(axes, near, alarm_at, BAD, size=26)
        axes.axvline(0, color=BAD, linewidth=1.6)
        axes.text(0, 1.62, "alarm  ", color=BAD, fontsize=9.5, fontweight="bold", ha="right")
        if route_back_at is not None:
            written_at = _seconds(route_back_at, alarm_at)
            axes.axvline(written_at, color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
            axes.text(written_at, 1.62, f"  route written back, {1000 * written_at:+.0f} ms", fontsize=9.5, ha="left")
        axes.set(xlim=(-before, after), xlabel="seconds from the alarm")
        return _svg(figure)


def _arm_lanes(axes: Axes, drafts: Sequence[Draft], start: datetime, colour: str, size: float = 12) -> None:
    for lane, (of_control, shade) in enumerate(((True, CONTROL), (False, colour))):
        times = [_seconds(draft.decided_at, start) for draft in drafts if (draft.arm == "control") == of_control]
        axes.scatter(times, [1 - lane] * len(times), s=size, color=shade, alpha=0.75, linewidths=0)
    axes.set(ylim=(-0.6, 1.6), yticks=[1, 0], yticklabels=["control", "candidate"])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _stretches(times: Sequence[float], gap_minutes: float = 0.5) -> list[tuple[int, int]]:
    """Index ranges without a longer gap inside, so that no line is drawn over a time without drafts."""
    cuts = [0, *(i for i in range(1, len(times)) if times[i] - times[i - 1] > gap_minutes), len(times)]
    return [(first, last) for first, last in itertools.pairwise(cuts) if last > first]


def _minutes(moment: datetime, start: datetime) -> float:
    return _seconds(moment, start) / 60


def _seconds(moment: datetime, start: datetime) -> float:
    return (moment - start).total_seconds()


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
