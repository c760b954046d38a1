"""Plots of a report as inline SVG. Labels stay outside, in the page: there every script has its font, and readers can copy them.

A plot of rows has `ROW_PX` pixels of height for each row, so that the page can put the rows' labels beside it; a narrow one, for a
telephone, has `NARROW_ROW_PX`, with room for the label above the points.
"""

from __future__ import annotations

import html
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nomoat.judge.stats import Interval
from nomoat.records import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_PX = 38
AXIS_PX = 30
WIDTH_PX = 560
NARROW_ROW_PX = 54
NARROW_WIDTH_PX = 250  # what a card has inside in a window of 320, beside its scrollbar
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


def forest_svg(
    rows: Sequence[Sequence[Point]], *, low: float, high: float, unit: str, title: str, is_difference: bool = False,
    is_narrow: bool = False,
) -> str:  # fmt: skip
    """A row for each entry of `rows`, with a point and an interval for each side (left first) on an axis from `low` to `high`.

    Differences, left minus right, have a line at 0, and points left of it the right side's colour.
    """
    figure, axes = _figure(len(rows), low, high, unit, is_narrow=is_narrow)
    if is_difference:
        axes.axvline(0.0, color=INK, linewidth=1.2)
    middle = 0.18 if is_narrow else 0.0
    for at, points in enumerate(rows):
        offsets = (middle,) if len(points) == 1 else (middle - 0.14, middle + 0.14)
        styles = zip(points, offsets, (LEFT_COLOUR, RIGHT_COLOUR), ("o", "s"), strict=False)
        for point, offset, side_colour, marker in styles:
            colour = RIGHT_COLOUR if is_difference and point.value < 0 else side_colour
            if point.interval is not None:
                axes.plot(point.interval, (at + offset, at + offset), color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(point.value, at + offset, marker=marker, color=colour, markersize=6.5, clip_on=False)
        if at:
            axes.axhline(at - 0.5, color=INK, alpha=0.12, linewidth=0.8)
    return _svg(figure, title)


def sequence_svg(looks: Sequence[Look], *, scale: float, rope: float | None, title: str) -> str:
    """The interval of the difference after so many items, times `scale`, around a line at 0; the rope, in the same unit, as a band."""
    figure, axes = _plain_figure(6, up="points, left minus right")
    numbers = [look.num_examples for look in looks]
    low, high = [scale * look.low for look in looks], [scale * look.high for look in looks]
    colour = LEFT_COLOUR if low[-1] > 0 else RIGHT_COLOUR if high[-1] < 0 else INK
    axes.fill_between(numbers, low, high, color=colour, alpha=0.2, linewidth=0)
    for bound in (low, high):
        axes.plot(numbers, bound, color=colour, linewidth=1.8)
    if rope is not None:
        axes.axhspan(-rope, rope, color=INK, alpha=0.1, linewidth=0)
    axes.axhline(0.0, color=INK, linewidth=1.2)
    axes.set_xlabel("items asked", color=INK, fontsize=9)
    return _svg(figure, f"{title} After {numbers[-1]:,} items: {low[-1]:.1f} to {high[-1]:.1f}.")


def scatter_svg(pairs: Sequence[tuple[float, float]], *, low: float, high: float, title: str) -> str:
    """A dot for each item, left score across and right score up; equal pairs make a bigger dot."""
    figure, axes = _plain_figure(9, square=True)
    margin = 0.04 * (high - low)
    axes.plot((low, high), (low, high), color=INK, alpha=0.5, linewidth=1)
    alike: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for (one, other), count in Counter(pairs).items():
        colour = LEFT_COLOUR if one > other else RIGHT_COLOUR if one < other else INK
        alike.setdefault((colour, count), []).append((one, other))
    for (colour, count), dots in alike.items():  # a line for each dot takes seconds of thousands
        axes.plot(*zip(*dots, strict=True), "o", color=colour, alpha=0.55, markersize=4 + 2 * math.sqrt(count - 1), markeredgewidth=0)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    return _svg(figure, title)


def cost_svg(sides: Sequence[tuple[float, float, Interval]], *, title: str) -> str:
    """Cost of 1,000 answers in US dollars across, score with its interval up; left side first."""
    figure, axes = _plain_figure(6, up="score")
    for (cost, score, interval), colour, marker in zip(sides, (LEFT_COLOUR, RIGHT_COLOUR), ("o", "s"), strict=False):
        axes.plot((cost, cost), interval, color=colour, linewidth=2.2, solid_capstyle="round", clip_on=False)
        axes.plot(cost, score, marker=marker, color=colour, markersize=7, clip_on=False)
    axes.set_xlim(left=0, right=1.2 * max(cost for cost, _, _ in sides) or 1.0)
    axes.set_xlabel("US dollars for 1,000 answers", color=INK, fontsize=9)
    return _svg(figure, title)


def _plain_figure(num_rows: int, *, up: str = "", square: bool = False) -> tuple[Figure, Axes]:
    """As high as so many rows of a forest, with both axes numbered. `up`: what the upright one shows."""
    height_px = num_rows * ROW_PX + AXIS_PX
    width_px = height_px if square else WIDTH_PX
    left_px, bottom = (65 if up else 45), 1.5 * AXIS_PX / height_px
    place = (left_px / width_px, bottom, 1 - (left_px + 15) / width_px, 0.97 - bottom)
    figure, axes = _empty_figure(width_px, height_px, place, lines=("left", "bottom"), numbered="both")
    axes.set_ylabel(up, color=INK, fontsize=9)
    return figure, axes


def _figure(num_rows: int, low: float, high: float, unit: str, *, is_narrow: bool) -> tuple[Figure, Axes]:
    width_px, row_px = (NARROW_WIDTH_PX, NARROW_ROW_PX) if is_narrow else (WIDTH_PX, ROW_PX)
    height_px = num_rows * row_px + AXIS_PX
    place = (0.03, AXIS_PX / height_px, 0.94, num_rows * row_px / height_px)
    figure, axes = _empty_figure(width_px, height_px, place, lines=("bottom",), numbered="x")
    axes.set_xlim(low, high)
    axes.set_ylim(num_rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _at: f"{value:g}{unit}")
    return figure, axes


def _empty_figure(
    width_px: int, height_px: int, place: tuple[float, float, float, float], *, lines: Sequence[str], numbered: Literal["x", "both"]
) -> tuple[Figure, Axes]:
    """See-through; axes at `place` (left, bottom, width, height as shares), of which `lines` are drawn and `numbered` has a grid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_px / PX_PER_INCH, height_px / PX_PER_INCH))
    axes = figure.add_axes(place)
    figure.patch.set_alpha(0.0)
    axes.patch.set_alpha(0.0)
    for side, line in axes.spines.items():
        line.set_visible(side in lines)
        line.set_color(INK)
    axes.tick_params(axis=numbered, colors=INK, labelsize=9)
    axes.grid(axis=numbered, color=INK, alpha=0.12, linewidth=0.8)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    import matplotlib as mpl

    width_px = figure.get_figwidth() * PX_PER_INCH
    buffer = io.StringIO()
    # Text stays text; the salt makes the identifiers of two plots on one page different, and the same in every run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{title} {width_px:.0f}"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, on_page in PAGE_COLOURS.items():
        svg = svg.replace(colour, on_page)
    return svg.replace("<svg ", f'<svg role="img" lang="en" aria-label="{html.escape(title)}" ', 1)
