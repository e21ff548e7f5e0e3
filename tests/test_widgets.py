"""Controls move what they should, and where none can run a still stands in their place, with its words."""

import os

import ipywidgets
import matplotlib
import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

from course_utils import widgets  # noqa: E402
from course_utils.errors import CourseError  # noqa: E402
from course_utils.plots import describe  # noqa: E402

VIEW = "application/vnd.jupyter.widget-view+json"


def draw(value):
    """Draw a bar as high as the value; 3 breaks it."""
    figure, ax = pyplot.subplots(figsize=(1, 1))
    ax.bar([0], [1 / (value - 3)])
    describe(ax, f"A bar for {value}.")
    return figure


def test_outside_of_a_kernel_the_stills_words_are_printed(capsys):
    widgets.explore(draw, "height", [1, 2, 4], start=2)
    assert capsys.readouterr().out == \
        "A bar for 2.\nheight = 2; in a running notebook, a slider goes from 1 to 4.\n"
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("way", [draw, lambda v: draw(v).axes[0], lambda v: draw(v) and None])
def test_figures_axes_and_pyplot_are_all_drawn(way, capsys):
    widgets.explore(way, "height", [1, 2])
    assert "A bar for 1." in capsys.readouterr().out


def test_bad_values_are_refused_and_a_broken_drawing_stops_the_notebook():
    with pytest.raises(CourseError, match="values is empty"):
        widgets.explore(draw, "height", [])
    with pytest.raises(CourseError, match="start=9 is not known; allowed: '1', '2'"):
        widgets.explore(draw, "height", [1, 2], start=9)
    with pytest.raises(ZeroDivisionError):
        widgets.explore(draw, "height", [3])
    assert pyplot.get_fignums() == []


def test_the_slider_redraws_and_shows_what_went_wrong():
    slider, picture = widgets._slider(draw, "height", [1, 2.5, 3], 1, ("", "A bar for 1."), True).children
    assert [label for label, _ in slider.options] == ["1", "2.5", "3"]
    slider.value = 1
    assert 'alt="A bar for 2.5."' in picture.value and 'src="data:image/png;base64,iVBOR' in picture.value
    slider.value = 2
    assert 'role="alert"' in picture.value and "ZeroDivisionError" in picture.value
    slider.value = 0
    assert "A bar for 1." in picture.value


def test_a_form_replies_to_what_was_chosen():
    said = []
    field = widgets.choice_field(["a", "b"])
    form = widgets.form("<p>Which?</p>", field, "Commit", lambda i: said.append(i) or f"chose {i}", "nothing yet")
    question, _, button, reply = form.children
    assert (question.value, reply.value, field.value) == ("<p>Which?</p>", "nothing yet", None)
    button.click()
    assert reply.value == "Choose first." and said == []
    field.value = 1
    button.click()
    assert reply.value == "chose 1" and said == [1]


def test_a_form_shows_what_went_wrong():
    def refuse(_):
        raise CourseError("no <such> thing")

    *_, button, reply = widgets.form("?", widgets.number_field(0, 10), "Commit", refuse).children
    button.click()
    assert 'role="alert"' in reply.value and "no &lt;such&gt; thing" in reply.value


def test_numbers_have_the_fields_they_need():
    whole, real = widgets.number_field(0, 20, 12), widgets.number_field(0.0, 1)
    assert isinstance(whole, ipywidgets.IntSlider) and (whole.min, whole.max, whole.value) == (0, 20, 12)
    assert isinstance(real, ipywidgets.FloatSlider) and (real.value, real.step) == (0.5, 0.01)
    assert widgets.choice_field(["a", "b"], 1).value == 1


CELLS = ["import course_utils, matplotlib.pyplot as plt",
         "def draw(v):\n    plt.figure(figsize=(1, 1)).subplots().bar([0], [v])\n"
         "course_utils.explore(draw, 'height', [1, 2, 3])",
         "guess = course_utils.predict('00.x', 'How `many`?', 0, 20)\nguess.commit(4)\nguess.reveal(7)",
         "course_utils.recall('00.a', 'Why?', ['this', 'that', 'those'], right=1, why='Because.')"]


def executed(**environment):
    """Execute the cells in a kernel, and return their rich outputs."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    env = {name: value for name, value in os.environ.items() if name not in ("COURSE_NOTEBOOK", "MPLBACKEND")}
    NotebookClient(book, store_widget_state=False).execute(env=env | {"COURSE_PROGRESS": "off", **environment})
    return book, [out for cell in book.cells for out in cell.outputs if "data" in out]


@pytest.fixture(scope="module")
def live():
    return executed()


@pytest.fixture(scope="module")
def headless():
    return executed(COURSE_NOTEBOOK="00")


def test_a_live_notebook_gets_each_control_and_its_still_in_one_output(live):
    picture, question, reveal, recall = live[1]
    assert all(VIEW in out.data for out in (picture, question, recall)) and VIEW not in reveal.data
    assert "image/png" in picture.data and picture.metadata["image/png"]["alt"] == "height = 1"
    assert "text/html" in question.data and "text/html" in recall.data


def test_a_headless_run_gets_the_stills_alone(headless):
    picture, slider, question, reveal, recall = headless[1]
    assert not any(VIEW in out.data for out in headless[1])
    assert "image/png" in picture.data and "slider goes from 1 to 3" in slider.data["text/html"]
    assert "How <code>many</code>?" in question.data["text/html"] and "from 0 to 20" in question.data["text/html"]
    assert '<svg role="img" aria-label="You predicted 4. Measured: 7. You were off by 3."' in reveal.data["text/html"]
    assert "<details><summary>Answer</summary><p>1 · that. Because.</p></details>" in recall.data["text/html"]


@pytest.mark.parametrize("kind", ["live", "headless"])
def test_a_page_made_of_the_notebook_shows_the_stills(kind, request):
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(request.getfixturevalue(kind)[0])
    for words in ('alt="height = 1"', "How <code>many</code>?", "Measured: 7", "<summary>Answer</summary>"):
        assert words in page
    assert VIEW not in page


def test_a_click_in_the_front_end_commits_and_a_moved_slider_redraws():
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS[:2] + [
        "guess = course_utils.predict('00.x', 'How many?', 0, 20)",
        "import gc, ipywidgets\nprint(guess.committed)\n"
        "print([w.value for w in gc.get_objects() if type(w) is ipywidgets.HTML])"]])
    client = NotebookClient(book)
    env = {name: value for name, value in os.environ.items() if name != "COURSE_NOTEBOOK"}
    with client.setup_kernel(env=env | {"COURSE_PROGRESS": "off"}):
        for i in range(3):
            client.execute_cell(book.cells[i], i)

        def send(model, **data):
            """Send what a front end sends when somebody acts on the last widget of this kind."""
            (*_, id) = [id for id, state in client.widget_state.items() if state["_model_name"] == model]
            content = {"comm_id": id, "data": data}
            client.kc.shell_channel.send(client.kc.session.msg("comm_msg", content))

        send("SelectionSliderModel", method="update", state={"index": 2}, buffer_paths=[])
        send("IntSliderModel", method="update", state={"value": 13}, buffer_paths=[])
        send("ButtonModel", method="custom", content={"event": "click"})
        client.execute_cell(book.cells[3], 3)
    said = book.cells[3].outputs[0].text
    assert said.startswith("13\n") and "height = 3" in said and "Committed: 13, before" in said
