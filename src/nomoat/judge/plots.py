"""Plots of a report as inline SVG. Labels stay outside, in the page: there every script has its font, and readers can copy them.

A plot has `ROW_PX` pixels of height for each row, so that the page can put the rows' labels beside it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nomoat.judge.stats import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_PX = 38
AXIS_PX = 30
WIDTH_PX = 560
PX_PER_INCH = 96
LEFT_COLOUR = "#2f6fde"
RIGHT_COLOUR = "#d9730d"
INK = "#010203"
# The page defines these colours, once for light and once for dark.
PAGE_COLOURS = {INK: "currentColor", LEFT_COLOUR: "var(--left)", RIGHT_COLOUR: "var(--right)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One estimate. Without an interval only the point is drawn."""

    value: float
    interval: Interval | None


def forest_svg(rows: Sequence[Sequence[Point]], *, low: float, high: float, unit: str, title: str) -> str:
    """A row for each entry of `rows`, with a point and an interval for each side (left first) on an axis from `low` to `high`."""
    figure, axes = _figure(len(rows), low, high, unit)
    for at, points in enumerate(rows):
        offsets = (0.0,) if len(points) == 1 else (-0.16, 0.16)
        styles = zip(points, offsets, (LEFT_COLOUR, RIGHT_COLOUR), ("o", "s"), strict=False)
        for point, offset, colour, marker in styles:
            if point.interval is not None:
                axes.plot(point.interval, (at + offset, at + offset), color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(point.value, at + offset, marker=marker, color=colour, markersize=6.5, clip_on=False)
        if at:
            axes.axhline(at - 0.5, color=INK, alpha=0.12, linewidth=0.8)
    return _svg(figure, title)


def difference_svg(point: Point, *, unit: str, title: str) -> str:
    """One point with its interval, left minus right, around a line at 0; the axis is symmetric."""
    reach = 1.25 * max(abs(number) for number in (point.value, *(point.interval or ())))
    figure, axes = _figure(1, -(reach or 1.0), reach or 1.0, unit)
    axes.axvline(0.0, color=INK, linewidth=1.2)
    colour = LEFT_COLOUR if point.value > 0 else RIGHT_COLOUR
    if point.interval is not None:
        axes.plot(point.interval, (0, 0), color=colour, linewidth=3, solid_capstyle="round")
    axes.plot(point.value, 0, marker="D", color=colour, markersize=7)
    return _svg(figure, title)


def _figure(num_rows: int, low: float, high: float, unit: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    height_px = num_rows * ROW_PX + AXIS_PX
    figure = Figure(figsize=(WIDTH_PX / PX_PER_INCH, height_px / PX_PER_INCH))
    axes = figure.add_axes((0.03, AXIS_PX / height_px, 0.94, num_rows * ROW_PX / height_px))
    figure.patch.set_alpha(0.0)
    axes.patch.set_alpha(0.0)
    axes.set_xlim(low, high)
    axes.set_ylim(num_rows - 0.5, -0.5)
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.tick_params(axis="x", colors=INK, labelsize=9)
    axes.xaxis.set_major_formatter(lambda value, _at: f"{value:g}{unit}")
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.8)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    # Text stays text; the salt makes the identifiers of two plots on one page different, and the same in every run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, on_page in PAGE_COLOURS.items():
        svg = svg.replace(colour, on_page)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
