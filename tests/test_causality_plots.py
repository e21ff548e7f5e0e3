"""Pictures of causal trials: what is drawn, and what their alternative texts say."""

import pytest

from course_utils.errors import CourseError
from course_utils.evidence import Estimate
from course_utils.plots import alt_text
from course_utils.plots.causality import ladders, power


def test_ladders_draw_every_series_at_every_step():
    ax = ladders([1, 2, 8], {"by word": [1.0, 0.9, 0.8], "by answer": [Estimate(0.8, 0.7, 0.9, 4)] * 3})
    lines = [container.lines[0] for container in ax.containers]
    assert [line.get_ydata().tolist() for line in lines] == [[1.0, 0.9, 0.8], [0.8] * 3]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "8"] and ax.get_xscale() == "log"
    assert "by answer: 0.80 [0.70, 0.90]" in alt_text(ax.figure)


def test_power_marks_the_level_and_says_the_rates():
    ax = power({"a test": {0.0: Estimate(0.05, 0.04, 0.06, 1000), 0.5: Estimate(0.8, 0.7, 0.9, 1000)}}, alpha=0.05)
    assert ax.containers[0].lines[0].get_xdata().tolist() == [0.0, 0.5]
    assert any(set(line.get_ydata()) == {0.05} for line in ax.lines)
    assert "a test: 0.050 [0.040, 0.060]" in alt_text(ax.figure)


@pytest.mark.parametrize("draw", [lambda: ladders([1], {}), lambda: power({})])
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(CourseError):
        draw()
