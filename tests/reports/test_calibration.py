"""Reliability diagrams show the numbers that they are given."""

import numpy as np
import pytest

from assay.reports.calibration import Panel, reliability_diagram


def test_bars_are_accuracies_and_gaps_end_at_the_confidence():
    confidence = np.array([np.nan, 0.3, 0.6, 0.9])
    accuracy = np.array([np.nan, 0.4, 0.5, 0.7])
    share = np.array([0.0, 0.2, 0.3, 0.5])
    figure = reliability_diagram([Panel("Before", confidence, accuracy, share, 0.15)] * 2)
    assert len(figure.axes) == 4
    upper = figure.axes[0]
    bars, gaps = upper.containers
    assert [bar.get_height() for bar in bars] == pytest.approx([0, 0.4, 0.5, 0.7])
    ends = [gap.get_y() + gap.get_height() for gap in gaps]
    assert ends == pytest.approx([0, 0.3, 0.6, 0.9])
    assert upper.get_title(loc="left") == "Before: ECE 15.00 %"
    assert [bar.get_height() for bar in figure.axes[2].containers[0]] == pytest.approx(share)
