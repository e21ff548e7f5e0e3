"""Pictures of steering show the numbers they were given, and say them."""

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.colors import to_rgba  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402

from course_utils.errors import CourseError  # noqa: E402
from course_utils.evidence import Estimate  # noqa: E402
from course_utils.plots import PALETTE, alt_text, dose_response, matrix, trade_off  # noqa: E402


def around(value, by=0.1):
    """Return an Estimate whose interval reaches further up than down."""
    return Estimate(value, value - by, value + 3 * by, 9)


pytestmark = pytest.mark.usefixtures("closed")

CURVES = {"latent": ([around(x, 0.2) for x in (1, 2, 4)], [around(y) for y in (0.1, 0.5, 0.9)]),
          "prompt": ([around(1.5)], [around(0.4)]), "means": ([1.0, 3.0], [0.2, 0.3])}
DRAW = {"trade_off": lambda **k: trade_off(CURVES, **k),
        "matrix": lambda **k: matrix([[0.5, 0.25], [float("nan"), 1]], ["a", "b"], ["a", "$b"], **k)}
DOSES, EFFECT, COST = [0, 1, 4], [around(y) for y in (0.1, 0.5, 0.9)], [1.0, around(2), around(5)]


def test_a_trade_off_has_a_line_a_method_and_bars_as_long_as_the_intervals():
    ax = DRAW["trade_off"]()
    lines = [container[0] for container in ax.containers]
    assert [line.get_xydata().tolist() for line in lines][:2] == [[[1, 0.1], [2, 0.5], [4, 0.9]], [[1.5, 0.4]]]
    assert [line.get_color() for line in lines] == list(PALETTE[:3])
    across, up = ax.containers[0][2]
    np.testing.assert_allclose(across.get_segments()[1], [(1.8, 0.5), (2.6, 0.5)])
    np.testing.assert_allclose(up.get_segments()[1], [(2, 0.4), (2, 0.8)])
    legend = ax.get_legend()
    assert [t.get_text() for t in legend.get_texts()] == ["latent", "prompt", "means"]
    assert len({handle.get_marker() for handle in legend.legend_handles}) == 3
    assert "latent: 0.10 [0.00, 0.40] for 1.00 [0.80, 1.60], 0.50" in alt_text(ax.figure)
    assert trade_off(CURVES, legend=False).get_legend() is None


def test_markers_grow_with_the_dose():
    points = DRAW["trade_off"]().collections
    sizes = [c.get_sizes() for c in points if len(c.get_offsets()) == 3 and len(c.get_sizes()) == 3]
    assert sizes and (np.diff(sizes[0]) > 0).all()


@pytest.mark.parametrize("most", [2.5, 40])
def test_what_is_too_broken_is_shaded_to_the_edge_and_in_view(most):
    ax = DRAW["trade_off"](most=most)
    (band,) = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert band.get_x() == most and band.get_x() + band.get_width() == pytest.approx(ax.get_xlim()[1])
    assert band.get_width() > 0 and [t.get_text() for t in ax.texts] == ["too broken →"]
    assert f"From a cost of {most}, texts count as too broken" in alt_text(ax.figure)


def test_a_dose_has_its_effect_above_and_its_cost_below():
    panels = dose_response(DOSES, EFFECT, COST, window=(1, 2), null=([0.0, 0.0, 0.1], [0.1, 0.2, 0.3]))
    top, low = panels
    assert top.get_shared_x_axes().joined(top, low)
    assert [(p.get_xlabel(), p.get_ylabel()) for p in panels] == [("", "effect"), ("dose", "nats a token")]
    assert top.lines[0].get_xydata().tolist() == [[0, 0.1], [1, 0.5], [4, 0.9]]
    assert low.lines[0].get_ydata().tolist() == [1, 2, 5]
    band, random = (c.get_paths()[0].vertices[:, 1] for c in top.collections)
    assert (band.min(), band.max()) == (pytest.approx(0), pytest.approx(1.2))
    assert (random.min(), random.max()) == (0, pytest.approx(0.3))
    for panel in panels:
        (window,) = panel.patches
        assert (window.get_x(), window.get_width()) == (1, 1)
    named = [*top.texts, *top.get_legend().get_texts()]
    assert [t.get_text() for t in named] == ["useful window", "random\ndirections"]
    said = alt_text(top.figure)
    assert "0.50 [0.40, 0.80] at 1" in said and "nats a token: 1 at 0" in said and "window: 1 to 2" in said


def test_random_directions_may_have_doses_of_their_own_and_costs_a_bound():
    top, low = dose_response(DOSES, EFFECT, COST, null=([1, 2], [0.0, 0.0], [0.1, 0.2]), most=3)
    outline = top.collections[1].get_paths()[0].vertices
    assert (outline[:, 0].min(), outline[:, 0].max()) == (1, 2)
    assert list(low.lines[1].get_ydata()) == [3, 3] and "From 3, texts count as too broken" in alt_text(top.figure)


def test_a_dose_is_drawn_into_axes_given():
    given = Figure().subplots(2)
    assert list(dose_response(DOSES, EFFECT, COST, ax=given, alt="mine")) == list(given)
    assert not pyplot.get_fignums() and not given[0].patches and alt_text(given[0].figure).strip() == "mine"


def test_a_matrix_writes_each_number_and_outlines_what_stayed_at_home():
    ax = matrix([[0.5, 0.254], [float("nan"), 1], [0, -0.0]], ["a", "b", "c"], ["a", "b"], label="share")
    assert [text.get_text() for text in ax.texts] == ["0.50", "0.25", "–", "1.00", "0.00", "0.00"]
    assert [text.get_color() for text in ax.texts][3:5] == ["black", "white"]  # on yellow, on dark blue
    assert [(round(p.get_x()), round(p.get_y())) for p in ax.patches] == [(0, 0), (1, 1)]
    assert all(p.get_edgecolor() == to_rgba("black") and not p.get_fill() for p in ax.patches)
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("chosen in", "used in")
    assert ax.figure.axes[1].get_ylabel() == "share"
    assert "chosen in a: a 0.50, b 0.25; chosen in b: a not measured, b 1.00" in alt_text(ax.figure)


def test_a_matrix_with_signs_is_white_at_zero():
    ax = matrix([[-1.0, 0.5]], ["a"], ["x", "y"], fmt="{:+.1f}")
    assert ax.images[0].get_clim() == (-1, 1) and [t.get_text() for t in ax.texts] == ["-1.0", "+0.5"]


def test_many_columns_with_long_names_are_slanted():
    ax = matrix(np.eye(3), list("abc"), ["layer seven", "b", "a"])
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {30}
    assert not matrix(torch.eye(3), list("abc"), list("xyz"), diagonal=False).patches


@pytest.mark.parametrize(("call", "said"), [
    (lambda: trade_off({}), "curves is empty"),
    (lambda: trade_off({"a": ([1], [1, 2])}), "cost has 1, effect has 2"),
    (lambda: dose_response([1], EFFECT, COST), "doses has 1, effect has 3"),
    (lambda: dose_response([], [], []), "doses is empty"),
    (lambda: dose_response(DOSES, EFFECT, COST, null=([0], [1])), "low has 1"),
    (lambda: dose_response(DOSES, EFFECT, COST, ax=[Figure().subplots()]), "ax has 1 Axes; give two"),
    (lambda: matrix([[1, 2]], ["a"], ["b"]), r"values of shape \(1, 2\) must be numbers, \[1 1\]"),
    (lambda: matrix([[float("nan")]], ["a"], ["b"]), "must be numbers")])
def test_bad_input_gets_one_sentence(call, said):
    with pytest.raises(CourseError, match=said):
        call()
