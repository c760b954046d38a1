"""How a training went, as an SVG that every browser shows."""

from __future__ import annotations

import io
from typing import Any


def training_svg(metrics: dict[str, Any]) -> str:
    """The loss an answer token over the minutes: a running mean of what was learned on, and the lessons held out."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    evaluations = metrics["history"]
    minutes = [each["seconds"] / 60 for each in evaluations]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(minutes, [each["learning"] for each in evaluations], color="#d9730d", marker="s", label="learned on (running mean)")
    held_out = [metrics["validation_loss_before"], *(each["held_out"] for each in evaluations)]
    axes.plot([0.0, *minutes], held_out, color="#2f6fde", marker="o", label="held out")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # evenly spaced numbers where fewer than two of these are in reach
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("minutes of learning")
    axes.set_ylabel("loss an answer token")
    axes.grid(alpha=0.2, which="both")
    axes.legend(frameon=False)
    lost = f"{held_out[0]:.3g} before, {held_out[-1]:.3g} after {minutes[-1]:.1f} minutes of learning"
    said = f"Loss an answer token, held out: {lost}"
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "training"}):
        figure.savefig(buffer, format="svg", metadata={**dict.fromkeys(("Date", "Creator", "Format", "Type")), "Title": said})
    return buffer.getvalue().replace("<svg ", '<svg role="img" lang="en" ', 1)
