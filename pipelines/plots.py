"""Small plots as inline SVG that take their colours and font from the page around them.

Each function draws one figure from plain numbers and returns the text of an `<svg>` element
without a fixed size. Colours are CSS variables of the page (`--accent`, `--muted`), so the same
picture is right on a light and on a dark page. Needs no display.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .statistics import Interval

# Matplotlib wants real colours; each of these is replaced by a CSS value in the finished SVG.
INK, MUTED, ACCENT, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
CSS = {INK: "currentColor", MUTED: "var(--muted)", ACCENT: "var(--accent)", SECOND: "var(--second)"}

PANELS_PER_ROW = 3

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


@matplotlib.rc_context(STYLE)
def intervals(scores: Mapping[str, Interval], highlighted: set[str], label: str) -> str:
    """One row per name with its value and interval, the first on top."""
    figure = Figure(figsize=(6.4, 0.6 + 0.27 * len(scores)))
    axes = figure.add_subplot()
    for row, (name, score) in enumerate(scores.items()):
        colour = ACCENT if name in highlighted else MUTED
        axes.plot([score.low, score.high], [row, row], color=colour, linewidth=2.4, solid_capstyle="round")
        axes.plot(score.value, row, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=MUTED, alpha=0.25, linewidth=0.6)
    axes.set_xlabel(label)
    return _svg(figure, "intervals")


@matplotlib.rc_context(STYLE)
def curves(panels: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Small multiples over training steps: title -> (step, value) pairs; empty panels are left out."""
    drawn = {title: points for title, points in panels.items() if points}
    rows = math.ceil(len(drawn) / PANELS_PER_ROW)
    figure = Figure(figsize=(10.2, 2.1 * rows))
    for place, (title, points) in enumerate(drawn.items(), start=1):
        axes = figure.add_subplot(rows, PANELS_PER_ROW, place)
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, ".-", color=ACCENT, alpha=0.35, linewidth=1.0, markersize=3)
        axes.plot(steps, _smooth(values), color=ACCENT)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.locator_params(nbins=4)
    return _svg(figure, "curves")


@matplotlib.rc_context(STYLE)
def audits(
    steps: Sequence[float], predicted: Sequence[float], rendered: Sequence[Interval], max_gap: float
) -> str:
    """What the ensemble foresaw of the audited designs over training steps, what they scored, and the
    line below which the alarm goes off."""
    figure = Figure(figsize=(6.4, 2.4))
    axes = figure.add_subplot()
    axes.plot(steps, predicted, "o-", color=ACCENT, markersize=4, label="predicted score")
    _band(axes, steps, rendered, SECOND, "rendered score")
    alarm = [value - max_gap for value in predicted]
    axes.plot(steps, alarm, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="alarm")
    axes.set_xlabel("step")
    axes.legend(fontsize=8)
    return _svg(figure, "audits")


@matplotlib.rc_context(STYLE)
def calibration(
    measured: Sequence[float], mean: Sequence[float], std: Sequence[float], highlighted: Sequence[bool]
) -> str:
    """Predicted score with its error bar against the measured score, one point per picture."""
    figure = Figure(figsize=(4.6, 4.2))
    axes = figure.add_subplot()
    for chosen, colour in ((False, MUTED), (True, ACCENT)):
        index = [i for i, flag in enumerate(highlighted) if bool(flag) is chosen]
        if index:
            x, y, error = ([values[i] for i in index] for values in (measured, mean, std))
            axes.errorbar(x, y, error, fmt="o", color=colour, markersize=3.5, elinewidth=0.8, alpha=0.6)
    ends = [min(*measured, *mean), max(*measured, *mean)]
    axes.plot(ends, ends, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_xlabel("measured score")
    axes.set_ylabel("predicted score ± standard deviation")
    return _svg(figure, "calibration")


@matplotlib.rc_context(STYLE)
def sweep(
    guidance: Sequence[float],
    predicted: Sequence[Interval],
    rendered: Sequence[Interval | None],
    unique_share: Sequence[float],
) -> str:
    """What guidance does: predicted and rendered score, and the diversity of the designs."""
    figure = Figure(figsize=(7.4, 2.5))
    left, right = figure.subplots(1, 2)
    _band(left, guidance, predicted, ACCENT, "predicted score")
    seen = [(w, score) for w, score in zip(guidance, rendered, strict=True) if score is not None]
    if seen:
        _band(left, [w for w, _ in seen], [score for _, score in seen], SECOND, "rendered score")
    left.legend(fontsize=8)
    right.plot(guidance, unique_share, "o-", color=ACCENT, markersize=4)
    right.set_title("distinct workflows per design")
    right.set_ylim(0, 1.05)
    for axes in (left, right):
        axes.set_xlabel("guidance w")
        axes.set_xticks(list(guidance))
    left.set_title("score")
    return _svg(figure, "sweep")


@matplotlib.rc_context(STYLE)
def quality_time(fixed: Sequence[tuple[float, float]], budgets: Sequence[tuple[str, float, Interval]]) -> str:
    """Score over render seconds: fixed workflows as points (seconds, score), designs within budgets as
    a curve of (label, mean seconds, score)."""
    figure = Figure(figsize=(6.4, 3.4))
    axes = figure.add_subplot()
    if fixed:
        x, y = zip(*fixed, strict=True)
        axes.plot(x, y, "o", color=MUTED, markersize=3.5, alpha=0.55, label="fixed workflows")
    ordered = sorted(budgets, key=lambda point: point[1])
    seconds, scores = [point[1] for point in ordered], [point[2] for point in ordered]
    below, above = [v.value - v.low for v in scores], [v.high - v.value for v in scores]
    values = [v.value for v in scores]
    axes.errorbar(
        seconds,
        values,
        [below, above],
        fmt="o-",
        color=ACCENT,
        markersize=5,
        label="designed within a budget",
    )
    for label, x, score in ordered:
        axes.annotate(label, (x, score.high), (0, 4), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xlabel("seconds of a render")
    axes.set_ylabel("mean score")
    axes.legend(fontsize=8, loc="lower right")
    return _svg(figure, "quality_time")


def _band(axes: Axes, x: Sequence[float], values: Sequence[Interval], colour: str, label: str) -> None:
    axes.plot(x, [v.value for v in values], "o-", color=colour, markersize=4, label=label)
    axes.fill_between(
        x, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.15, linewidth=0
    )


def _smooth(values: Sequence[float], weight: float = 0.7) -> list[float]:
    """Exponential average that starts at the first value."""
    smooth = [float(values[0])]
    for value in values[1:]:
        smooth.append(weight * smooth[-1] + (1 - weight) * float(value))
    return smooth


def _svg(figure: Figure, name: str) -> str:
    figure.patch.set_alpha(0.0)
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    figure.set_layout_engine("constrained")
    buffer = io.StringIO()
    # Ids are hashes: of the salt, so that equal plots are equal text and two plots never share one.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' width="([\d.]+)pt" height="[\d.]+pt"', r' style="max-width:\1pt"', svg, count=1)
    svg = re.sub(r"font-family: [^;]*;", "", svg)  # the page's own
    for colour, css in CSS.items():
        svg = svg.replace(colour, css)
    return svg
