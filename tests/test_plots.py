"""Pictures show the numbers they were given, say them in words, and reach the page with those words."""

from types import SimpleNamespace

import matplotlib
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from test_steering_plots import DRAW as STEERING

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from nbconvert import HTMLExporter  # noqa: E402

from course_utils.errors import CourseError  # noqa: E402
from course_utils.evidence import Estimate  # noqa: E402
from course_utils.plots import (  # noqa: E402
    PALETTE,
    LiveTraining,
    alt_text,
    density_histogram,
    frontier,
    intervals,
    loss_bars,
    null_distributions,
    training_curves,
)
from course_utils.plots.figures import places  # noqa: E402

LOG = [{"step": s, "samples": 64 * s, "loss": 8.0 / s, "l0": 16.0, "explained_variance": 1 - 1 / s, "dead": 0.0}
       for s in range(1, 9)]
LOSSES = SimpleNamespace(ce_clean=Estimate(2.0, 1.9, 2.1, 9), ce_spliced=Estimate(2.2, 2.1, 2.3, 9),
                         ce_mean=Estimate(4.0, 3.9, 4.1, 9), ce_zero=Estimate(6.0, 5.9, 6.1, 9))
DRAW = {
    "density": lambda **k: density_histogram([0.0, 0.01, 0.02, 0.5], **k),
    "intervals": lambda **k: intervals(["cat", "dog"], [Estimate(1, 0.5, 2, 9), Estimate(3, 2, 4, 9)], **k),
    "losses": lambda **k: loss_bars(LOSSES, **k),
    "frontier": lambda **k: frontier([16, 8, 32], [0.8, 0.7, 0.9], ["topk", "topk", "l1"], **k),
    "nulls": lambda **k: null_distributions({"random": np.arange(20.0), "twin": Estimate(0, -1, 1, 9)},
                                            Estimate(30, 28, 32, 9), **k),
    **STEERING,
}
pytestmark = pytest.mark.usefixtures("closed")


@pytest.mark.parametrize("name", DRAW)
def test_each_picture_takes_axes_returns_them_and_speaks(name):
    given = Figure().subplots()
    assert DRAW[name](ax=given) is given and not pyplot.get_fignums()
    own = DRAW[name]()
    own.figure.canvas.draw()
    assert len(alt_text(own.figure)) > 20
    assert alt_text(DRAW[name](alt="in my words").figure) == "in my words"


def test_curves_show_the_log_and_compare_runs():
    axes = training_curves({"topk": LOG, "l1": LOG[:4]})
    line, other = axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [(row["step"], row["loss"]) for row in LOG])
    assert len(other.get_xydata()) == 4
    assert line.get_linestyle() != other.get_linestyle()  # told apart without colour too
    assert "topk from 8 to 1" in alt_text(axes[0].figure) and "dead" in alt_text(axes[0].figure)
    one = training_curves([{"samples": 5, "loss": 1.0}], keys=["loss"], ax=[Figure().subplots()])
    assert one.shape == (1,) and one[0].get_xlabel() == "samples"


def test_density_counts_the_silent_and_places_the_rest():
    ax = density_histogram(np.r_[np.zeros(7), np.full(3, 0.1)], label="mine")
    assert "7 of 10 latents never fire" in ax.get_title() and "7 of 10" in alt_text(ax.figure)
    assert sum(patch.get_height() for patch in ax.patches) == 3 and ax.get_xscale() == "log"
    assert "4 of 4" in density_histogram(np.zeros(4)).get_title()


def test_intervals_stand_at_their_values_first_on_top():
    ax = DRAW["intervals"](reference=0.0)
    points, (low, *_), _ = ax.containers[0]
    np.testing.assert_allclose(points.get_xydata(), [(1, 1), (3, 0)])
    np.testing.assert_allclose(low.get_xdata(), [0.5, 2])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["cat", "dog"]
    assert "cat 1.0 [0.5, 2.0]; dog 3.0 [2.0, 4.0]" in alt_text(ax.figure)


def test_a_value_outside_its_percentile_interval_is_drawn():
    intervals(["odd"], [Estimate(1.0, 1.1, 1.2, 9)]).figure.canvas.draw()


def test_losses_are_bars_of_their_height():
    ax = DRAW["losses"]()
    assert [round(p.get_height(), 3) for p in ax.patches] == [2.0, 2.2, 4.0, 6.0]
    assert "spliced 2.20 [2.10, 2.30]" in alt_text(ax.figure)


def test_frontier_joins_points_of_one_label_in_order():
    ax = DRAW["frontier"]()
    np.testing.assert_allclose(ax.containers[0][0].get_xydata(), [(8, 0.7), (16, 0.8)])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["topk", "l1"]
    assert ax.containers[0][0].get_marker() != ax.containers[1][0].get_marker()


def test_colours_are_okabe_and_itos():
    assert set(PALETTE) < {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


@pytest.mark.parametrize(("call", "words"), [
    (lambda: training_curves([]), "log is empty"),
    (lambda: training_curves({}), "log is empty"),
    (lambda: training_curves(LOG, ax=[Figure().subplots()]), "ax has 1 Axes; give one for each of loss"),
    (lambda: density_histogram([]), "density is empty"),
    (lambda: density_histogram([0.1, float("nan")]), "shares of tokens between 0 and 1"),
    (lambda: density_histogram([3.0]), "shares of tokens between 0 and 1"),
    (lambda: intervals(["a"], [1.0, 2.0]), "labels has 1, estimates has 2"),
    (lambda: frontier([1], [1], []), "labels has 0"),
    (lambda: frontier([], [], []), "x is empty"),
    (lambda: null_distributions({}, Estimate(1, 0, 2, 9)), "nulls is empty"),
])
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(CourseError, match=words):
        call()


def test_the_live_figure_is_silent_outside_a_notebook(capsys):
    with LiveTraining() as live:
        for row in LOG:
            live.update(row)
        live.update(LOG)
    assert live.rows == LOG and live.redraws == 0
    assert capsys.readouterr() == ("", "") and not pyplot.get_fignums()


CELLS = ["""
from course_utils.evidence import Estimate
from course_utils.plots import intervals, training_curves, LiveTraining
intervals(["cat"], [Estimate(1.0, 0.5, 2.0, 9)]);
""", """
import time
start, live = time.monotonic(), LiveTraining(keys=["loss"])
for step in range(1, 151):
    live.update([{"step": i, "loss": 1 / i} for i in range(1, step + 1)])
    time.sleep(0.01)
""", "print(live.redraws, time.monotonic() - start)"]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c.strip()) for c in CELLS])
    root = __file__.rsplit("tests", 1)[0]
    return NotebookClient(book, timeout=60, resources={"metadata": {"path": root}}).execute()


def test_alternative_texts_reach_the_notebook_and_its_page(notebook):
    picture, = (o for o in notebook.cells[0].outputs if o.output_type == "display_data")
    assert "cat 1.0 [0.5, 2.0]" in picture.metadata["image/png"]["alt"]
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert 'alt="Estimates with intervals: cat 1.0 [0.5, 2.0]."' in page


def test_the_live_figure_is_one_picture_of_the_last_state_seldom_redrawn(notebook):
    picture, = notebook.cells[1].outputs
    assert picture.data["image/png"] and picture.metadata["image/png"]["alt"] == "loss: from 1 to 0.00667."
    redraws, seconds = map(float, notebook.cells[2].outputs[0].text.split())
    assert 2 <= redraws <= 2 * seconds + 2


def test_curves_of_runs_that_went_wrong_stay_readable():
    rows = [{"step": s, "loss": 1000.0 / s**2, "heldout_explained_variance": 0.9 - 30 * (s < 3)} for s in range(1, 9)]
    loss, kept = training_curves(rows, keys=("loss", "heldout_explained_variance"))
    assert loss.get_yscale() == "log" and kept.get_ylim()[0] == -1 and "cut" in kept.get_title()
    assert "from -29.1 to 0.9" in alt_text(kept.figure)


def test_a_null_in_one_place_can_be_seen():
    ax = null_distributions({"alike": [0.0, 1e-9]}, Estimate(1.0, 0.9, 1.1, 9))
    edges = ax.patches[-1].get_data().edges
    assert edges[-1] - edges[0] == pytest.approx(0.011)


@pytest.mark.parametrize("names, expected", [
    (["latents", "neurons", "LEACE"], [0, 4, 6]), (["a", "DiffMean", "b", "latents"], [1, 2, 3, 0]),
    (["latents", "latent, by output"], [0, 1]), (["linear probe", "probe"], [3, 0]), ([], [])])
def test_a_known_rival_keeps_its_colour_and_no_two_share_one(names, expected):
    assert places(names) == expected


def test_more_names_than_colours_are_still_told_apart():
    found = places(["latents", *map(str, range(11))])
    assert sorted(found) == list(range(12)) and found[0] == 0
