"""The promotion report as one self-contained HTML page."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("svg")
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib import pyplot as plt

from rlaas.evaluation.comparison import SYSTEMS, average_by_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

    from rlaas.evaluation.comparison import HeldOutCase, System
    from rlaas.evaluation.report import PromotionReport

TEMPLATE = Path(__file__).with_name("promotion_page.html.j2")
NAMES: dict[System, str] = {"baseline": "baseline", "candidate": "candidate", "sft_only": "SFT only"}
COLOURS: dict[System, str] = {"baseline": "#64748b", "candidate": "#0d9488", "sft_only": "#d97706"}
EXAMPLES = 6
_STYLE: dict[RcKeyType, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "promotion",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#cbd5e1",
    "legend.frameon": False,
}


def render_promotion_page(report: PromotionReport, cases: Sequence[HeldOutCase]) -> str:
    """The page: decision, figures, plots, and up to `EXAMPLES` interactions where the candidate did worst and best."""
    ranking = sorted(zip(report.cases, cases, strict=True), key=lambda both: _gain(both[0].edit_similarity))
    examples = ranking if len(ranking) <= EXAMPLES else [*ranking[: EXAMPLES // 2], *ranking[-EXAMPLES // 2 :]]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text()).render(
        report=report,
        systems=SYSTEMS,
        names=NAMES,
        comparisons=(
            ("candidate over baseline", report.candidate_over_baseline),
            ("candidate over SFT only", report.candidate_over_sft_only),
            ("SFT only over baseline", report.sft_only_over_baseline),
        ),
        examples=examples,
        means=Markup(_draw_means(report)),
        threads=Markup(_draw_threads(report)),
    )


def _gain(similarity: dict[System, float]) -> float:
    return similarity["candidate"] - similarity["baseline"]


def _draw_means(report: PromotionReport) -> str:
    """An SVG of each system's mean edit similarity with its interval."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.4, 1.9))
        for row, system in enumerate(reversed(SYSTEMS)):
            similarity = report.systems[system].edit_similarity
            axes.plot(similarity.ci, (row, row), color=COLOURS[system], linewidth=5, alpha=0.35, solid_capstyle="round")
            axes.plot(similarity.mean, row, "o", color=COLOURS[system], markersize=8)
            axes.annotate(f"{similarity.mean:.3f}", (similarity.mean, row), xytext=(0, 9), textcoords="offset points", ha="center")
        axes.set_yticks(range(len(SYSTEMS)), [NAMES[system] for system in reversed(SYSTEMS)])
        axes.set_ylim(-0.6, len(SYSTEMS) - 0.3)
        axes.set_xlim(0, 1)
        axes.set_xlabel("edit similarity to the text that was sent (mean, 95% interval)")
        return _write_svg(figure)


def _draw_threads(report: PromotionReport) -> str:
    """An SVG of every thread's gain over the baseline, sorted."""
    gains = sorted(average_by_thread(report.cases, lambda case: _gain(case.edit_similarity)))
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.4, 2.4))
        axes.bar(range(len(gains)), gains, color=[COLOURS["candidate"] if gain > 0 else "#e11d48" for gain in gains], width=0.85)
        axes.axhline(0, color="#0f172a", linewidth=0.8)
        axes.set_xticks([])
        axes.set_xlabel(f"{len(gains)} held-out threads, worst to best")
        axes.set_ylabel("gain in edit similarity")
        return _write_svg(figure)


def _write_svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]
