"""The plot of a training, as the text of its SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from nomoat.tune.plots import training_svg


@pytest.mark.parametrize(
    ("losses", "some"),
    [((4.4, 3.1, 2.9), {"3.2", "4"}), ((1.212, 0.4, 0.1, 0.03), {"0.05", "0.1", "0.5", "1"}), ((0.98, 0.97), {"0.974"})],
)
def test_losses_are_plain_numbers_whatever_their_range(losses: tuple[float, ...], some: set[str]) -> None:
    before, *later = losses
    evaluations = [{"seconds": 60.0 * at, "learning": loss, "held_out": loss} for at, loss in enumerate(later, start=1)]
    svg = training_svg({"history": evaluations, "validation_loss_before": before})
    assert "times" not in svg and "10^" not in svg and not re.search(r"baseline-shift|tspan", svg)
    upright = re.findall(r">([\d.]+)</text>", svg.partition('id="matplotlib.axis_2"')[2])
    assert some <= set(upright), upright


def test_the_plot_says_to_a_screen_reader_how_the_training_went() -> None:
    evaluations = [{"seconds": 60.0 * at, "learning": 0.5, "held_out": 0.8 / at} for at in (1, 2)]
    root = ElementTree.fromstring(training_svg({"history": evaluations, "validation_loss_before": 1.1}))
    title = root.findtext("{http://www.w3.org/2000/svg}title")
    assert (root.get("role"), title) == ("img", "Loss an answer token, held out: 1.1 before, 0.4 after 2.0 minutes of learning")
