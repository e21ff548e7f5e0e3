"""Grids, curves and bars show the numbers given, and say them."""

import numpy as np
import pytest

from course_utils.errors import CourseError
from course_utils.evidence import Estimate
from course_utils.plots import alt_text
from course_utils.plots.blocks import bars, curves, grid

A, B = Estimate(0.5, 0.4, 0.7, 9), Estimate(0.2, 0.1, 0.25, 9)


def test_a_grid_shows_and_says_every_number():
    ax = grid([[0.0, 0.25], [1.0, 0.5]], ["up", "down"], ["$a", "\n"], title="Shares", label="share")
    assert np.array_equal(ax.images[0].get_array(), [[0.0, 0.25], [1.0, 0.5]])
    assert [text.get_text() for text in ax.texts] == ["0.00", "0.25", "1.00", "0.50"]
    assert [label.get_text() for label in ax.get_xticklabels()] == [r"\$a", "↵"]
    assert alt_text(ax.figure) == "Shares: up 0.00, 0.25; down 1.00, 0.50."


def test_a_grid_writes_light_on_dark_and_its_own_texts():
    ax = grid([[0.0, 1.0]], ["row"], ["a", "b"], texts=[["x", "y"]])
    assert [(t.get_text(), t.get_color()) for t in ax.texts] == [("x", "white"), ("y", "black")]
    assert alt_text(ax.figure) == "Numbers: row 'x' 0.00, 'y' 1.00."
    signed = grid([[-1.0, 0.0, 1.0]], ["row"], list("abc"), limits=(-1, 1))
    assert [t.get_color() for t in signed.texts] == ["white", "black", "white"]


def test_curves_have_their_intervals_as_bands():
    ax = curves({"first": [A, B], "second": [B, B]}, ylabel="probability")
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.5, 0.2], [0.2, 0.2]]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(0.1) and band.max() == pytest.approx(0.7)
    assert "first 0.50 [0.40, 0.70], 0.20" in alt_text(ax.figure)


def test_bars_stand_side_by_side_and_dots_over_them():
    ax = bars({"model": [0.3, 0.4], "other": [A, B]}, ["x", "y"], dots={"text": [A, B]}, title="T")
    assert [round(p.get_height(), 2) for p in ax.patches] == [0.3, 0.4, 0.5, 0.2]
    assert {label.get_text() for label in ax.get_legend().get_texts()} == {"model", "other", "text"}
    assert "model: x 0.3, y 0.4" in alt_text(ax.figure) and "text: x 0.50" in alt_text(ax.figure)


def test_unequal_or_empty_series_are_refused():
    with pytest.raises(CourseError, match="equally long"):
        bars({"model": [0.3]}, ["x", "y"])
    with pytest.raises(CourseError, match="empty"):
        curves({})
