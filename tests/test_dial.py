"""The dial writes anew at each dose, once; marks the right letters; and leaves a table where no widget runs."""

import os
import re
from html.parser import HTMLParser

import ipywidgets
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from course_utils.errors import CourseError
from course_utils.widgets import dial as widget
from course_utils.widgets.dial import Text, dial

VIEW = "application/vnd.jupyter.widget-view+json"
DOSES = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


class Model:
    """Writes "x cat<b>" and so on, breaks at dose 3, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, dose, *prompt):
        self.asked.append((dose, *prompt))
        if dose == 3:
            raise ZeroDivisionError("no <such> dose")
        after = f"x cat<b> & {dose:g}\nthe cats"
        hits = [(2, 5), (len(after) - 4, len(after))] if dose else []
        return [Text("The ", after, hits, dose + 0.25), Text("<i>A", "", [], float("nan"))]


class Reader(HTMLParser):
    """What a browser sees: the tags, and which text stands within marks."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.marked, self.open = [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open += tag == "mark"

    def handle_endtag(self, tag):
        self.open -= tag == "mark"

    def handle_data(self, data):
        if self.open:
            self.marked.append(data)


def made(model, start=0.0, marks=(0.5, 1.0), prompts=None, doses=tuple(DOSES)):
    """Return the parts of the widget."""
    return widget._controls(widget._Writer(model, "dose", marks, prompts), list(doses), start).children


def test_marks_stand_on_the_hits_letters_and_are_bold_besides():
    slider, _, shown = made(Model())
    assert Reader(shown.value).marked == []
    slider.value = 0.5
    page = Reader(shown.value)
    assert page.marked == ["cat", "cats"]
    assert shown.value.count("<mark><b>") == shown.value.count("</b></mark>") == 2


def test_marks_that_overlap_become_one_and_a_touched_word_counts_once():
    text = Text("", "New York's cats", [(0, 3), (2, 8), (4, 6)], 1.0)
    assert widget._pieces(text) == [(True, "New York"), (False, "'s cats")]
    assert widget._counted(text) == (2, 3)


def test_what_the_model_wrote_stays_text():
    slider, _, shown = made(Model())
    slider.value = 1.0
    assert set(Reader(shown.value).tags) == {"div", "style", "table", "tr", "td", "i", "mark", "b"}
    assert "<mark><b>cat</b></mark>&lt;b&gt; &amp; 1↵the" in shown.value and "<i>&lt;i&gt;A</i>" in shown.value
    assert widget._shown("a\u202eb\x00\n") == "a·b·↵"


def test_the_line_says_share_cost_and_where_the_dose_lies():
    slider, line, shown = made(Model())
    said = []
    for dose in DOSES[:4]:
        slider.value = dose
        said.append(re.search(r'<div role="status" aria-live="polite"><b>(.*)</b></div>', line.value).group(1))
    assert said[0] == "dose 0 · 0 of 6 words · 0.2 nats a token · below the useful window (0.5 to 1)"
    assert said[1] == "dose 0.5 · 2 of 7 words · 0.8 nats a token · inside the useful window (0.5 to 1)"
    assert "inside" in said[2] and "above" in said[3]
    assert "1.8 nats</td>" in shown.value and "–</td>" in shown.value  # nothing written costs nothing that we know
    assert "window" not in made(Model(), marks=None)[1].value


def test_each_dose_and_prompt_is_written_once():
    model = Model()
    slider, chosen, _, shown = made(model, prompts=["one", "two\n"])
    assert isinstance(slider, ipywidgets.SelectionSlider) and slider.continuous_update is False
    assert slider.description == "dose" and chosen.description == "prompt"
    assert [label for label, _ in chosen.options] == ["one", "two↵"]
    for dose, prompt in [(0.5, 0), (0.0, 0), (0.5, 0), (0.5, 1), (0.5, 0)]:
        slider.value, chosen.value = dose, prompt
    assert model.asked == [(0.0, "one"), (0.5, "one"), (0.5, "two\n")]
    assert 'aria-label="Texts at dose 0.5"' in shown.value


def test_while_it_writes_it_says_so_and_fades_the_old_texts():
    seen = []

    def write(dose):
        if parts:
            seen.append((parts[1].value, parts[2].value))
        return [Text("a", f" b{dose:g}", [], 0.0)]

    parts = []
    parts += made(write)
    parts[0].value = 2.0
    (line, texts), = seen
    assert "dose 2 · writing…" in line and 'aria-live="polite"' in line
    assert 'aria-busy="true"' in texts and " b0" in texts
    assert "writing" not in parts[1].value and "busy" not in parts[2].value and " b2" in parts[2].value


def test_what_went_wrong_is_shown_and_the_slider_goes_on():
    model = Model()
    slider, line, shown = made(model)
    slider.value = 3.0
    assert 'role="alert"' in shown.value and "ZeroDivisionError: no &lt;such&gt; dose" in shown.value
    assert "dose 3 · nothing written" in line.value
    slider.value = 1.0
    assert "alert" not in shown.value and Reader(shown.value).marked == ["cat", "cats"]
    slider.value = 3.0
    assert model.asked.count((3.0,)) == 2  # a failure is not kept


def test_outside_of_a_kernel_the_table_is_printed_in_words(capsys):
    model = Model()
    dial(model, DOSES[:3], 0.5, marks=(0.5, 1), name="strength")
    said = capsys.readouterr().out
    assert said.startswith("What the model writes at 3 of 3 values of strength, the feature's words marked; in a "
                           "running notebook, a slider goes from 0 to 1.\nstrength 0 · 0 of 6 words")
    assert "\n  The  ▸ x [cat]<b> & 0.5↵the [cats] (0.8 nats)\n" in said and "\n  <i>A ▸  (–)\n" in said
    assert model.asked == [(0.0,), (0.5,), (1.0,)]


def test_the_table_spreads_over_the_doses_with_the_start_among_them():
    assert widget._spread(DOSES[:4], 3) == DOSES[:4]
    assert widget._spread(DOSES, 0) == [0.0, 1.0, 2.0, 3.0]
    assert widget._spread(DOSES, 3) in ([0.0, 1.5, 2.0, 3.0], [0.0, 1.0, 1.5, 3.0])
    assert all(DOSES[i] in widget._spread(DOSES, i) and len(set(widget._spread(DOSES, i))) == 4 for i in range(7))


def test_the_table_is_markup_that_loads_nothing():
    writer = widget._Writer(Model(), "<dose>", None, ["the <first>", "second"])
    table = widget._still(writer, [0.0, 0.5], "a <caption>")["text/html"]
    page = Reader(table)
    assert page.tags.count("table") == page.tags.count("caption") == 1 and page.tags.count("tbody") == 2
    assert page.tags.count("tr") == 6 and page.marked == ["cat", "cats"]
    assert '<th scope="rowgroup" colspan="2">&lt;dose&gt; 0.5 · 2 of 7 words' in table and "a &lt;caption&gt;" in table
    assert not re.search(r"//|src=|href=|url\(|@import|<script", table)


def test_doses_may_be_not_quite_what_they_seem(capsys):
    dial(Model(), list(np.arange(4) * 0.1), 0.3)
    assert "dose 0.3 · 2 of " in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "options", "said"), [
    (([],), {}, "doses is empty"),
    (([1.0, 2],), {}, "start=0.0 is not known; allowed: '1', '2'"),
    ((DOSES,), {"prompts": []}, "prompts is empty"),
    ((DOSES,), {"marks": (2, 1)}, r"marks=\(2, 1\) must be \(lowest, highest\)")])
def test_bad_values_are_refused(arguments, options, said):
    with pytest.raises(CourseError, match=said):
        dial(Model(), *arguments, **options)


@pytest.mark.parametrize(("texts", "said"), [
    ([], "returned no texts"),
    ([("a", "bc", [(1, 3)], 0.0)], "hits .* within 2"),
    ([("a", "bc", [(1, 1)], 0.0)], "hits .* within 2")])
def test_texts_that_cannot_be_shown_are_refused(texts, said):
    with pytest.raises(CourseError, match=said):
        dial(lambda dose: texts, [0.0])


CELLS = ["from course_utils.widgets.dial import Text, dial\nasked = []\n"
         "def write(dose, prompt):\n    asked.append(dose)\n"
         "    return [Text(prompt, f' <b> cats {dose}', [(5, 9)], dose)]",
         "dial(write, [0, 1, 2, 3, 4, 5], 1, prompts=['once', 'twice'])",
         "import gc, ipywidgets\nprint(asked)\n"
         "print([w.value for w in gc.get_objects() if type(w) is ipywidgets.HTML])"]


@pytest.mark.parametrize("headless", [False, True])
def test_a_notebook_gets_slider_and_table_in_one_output_and_a_moved_slider_writes(headless):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    env = {name: value for name, value in os.environ.items() if name != "COURSE_NOTEBOOK"}
    env |= {"COURSE_PROGRESS": "off"} | ({"COURSE_NOTEBOOK": "08"} if headless else {})
    client = NotebookClient(book)
    with client.setup_kernel(env=env):
        for i in range(2):
            client.execute_cell(book.cells[i], i)
        if not headless:
            (id,) = [id for id, state in client.widget_state.items() if state["_model_name"] == "SelectionSliderModel"]
            content = {"comm_id": id, "data": {"method": "update", "state": {"index": 4}, "buffer_paths": []}}
            client.kc.shell_channel.send(client.kc.session.msg("comm_msg", content))
        client.execute_cell(book.cells[2], 2)
    (output,), said = book.cells[1].outputs, book.cells[2].outputs[0].text
    assert (VIEW in output.data) is not headless
    assert re.findall(r">dose (\d) ·", output.data["text/html"]) == ["1", "2", "3", "5"]
    assert said.startswith("[1.0, 2.0, 3.0, 5.0]" if headless else "[1.0, 2.0, 3.0, 5.0, 4.0]")
    assert headless or "&lt;b&gt; <mark><b>cats</b></mark> 4.0" in said
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(book)
    assert "<caption>What the model writes at 4 of 6 values of dose" in page and VIEW not in page
