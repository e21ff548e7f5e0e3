"""Rating sessions and the browser of cards: what is drawn, what is kept, and what a click does."""

import numpy as np
import pytest

from course_utils.errors import CourseError
from course_utils.exercises.ratings import Session, priming_items
from course_utils.widgets.browser import browse, controls

PAGES = [(f"label {i % 6}", f"<p>passage {i}</p>") for i in range(12)]


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))


def test_items_have_the_right_label_a_wrong_prime_and_are_shown_by_halves():
    items = priming_items(PAGES, n_options=5, seed=3)
    assert [item.right for item in items] == [right for right, _ in PAGES] and sum(i.shown for i in items) == 6
    for item in items:
        assert len(set(item.options)) == 5 and {item.right, item.prime} <= set(item.options)
        assert item.prime != item.right
    assert priming_items(PAGES, seed=3) == items != priming_items(PAGES, seed=4)
    where = [item.options.index(item.right) for item in priming_items(PAGES * 20, seed=0)]
    assert len(set(where)) == 5, "the right label must not always stand in one place"


def test_which_items_are_primed_has_nothing_to_do_with_the_items():
    shown = np.array([[item.shown for item in priming_items(PAGES, seed=s)] for s in range(200)])
    assert (np.abs(shown.mean(0) - 0.5) < 0.15).all()


def test_a_label_is_told_only_where_it_is_shown():
    items = priming_items(PAGES)
    session = Session("06.test", items)
    for i, item in enumerate(items):
        assert ("An earlier rater wrote" in session.page(i)) == item.shown
        assert "passage" in session.page(i) and (item.prime in session.page(i)) == item.shown


def test_the_first_answer_stays_and_survives_the_session():
    items = priming_items(PAGES)
    session = Session("06.test", items)
    assert session.chosen == [None] * 12 and not session.done
    session.answer(2, items[2].options[0])
    session.answer(2, items[2].options[1])
    again = Session("06.test", items)
    assert again.chosen[2] == items[2].options[0] and again.chosen.count(None) == 11
    for i, item in enumerate(items):
        again.answer(i, item.right)
    assert again.done


def test_bad_input_is_named():
    with pytest.raises(CourseError, match="n_options=9 must lie in 2 to 6"):
        priming_items(PAGES, n_options=9)
    with pytest.raises(CourseError, match="items is empty"):
        Session("06.test", [])
    session = Session("06.test", priming_items(PAGES))
    with pytest.raises(CourseError, match="label='nonsense' is not known"):
        session.answer(0, "nonsense")
    with pytest.raises(CourseError, match="i=12 must lie in 0 to 11"):
        session.answer(12, "label 1")


def test_the_form_leads_through_all_items(capsys):
    session = Session("06.test", priming_items(PAGES))
    session.show()
    assert "12 latents to label" in capsys.readouterr().out
    page, choice, press, said = session._form().children
    press.click()
    assert said.value == "Choose first." and "1 of 12" in page.value
    for i, item in enumerate(session.items):
        assert list(choice.options) == list(item.options) and f"{i + 1} of 12" in page.value
        choice.value = item.options[1]
        press.click()
    assert session.done and press.disabled and "All are rated" in page.value


class Cards:
    """Ten cards, every third of which is about dogs."""

    def __len__(self):
        return 10

    def search(self, text="", sort="number"):
        found = [i for i in range(10) if text in ("dog" if i % 3 == 0 else "cat")]
        return found if sort == "number" else found[::-1]


class Card:
    def __init__(self, i):
        if i == 9:
            raise CourseError("card 9 is <lost>")
        self.i = i

    def __repr__(self):
        return f"card {self.i}"

    def _repr_html_(self):
        return f"<p>card {self.i}</p>"


def test_outside_of_a_kernel_the_first_card_is_printed(capsys):
    browse(Cards(), Card, start=4)
    assert capsys.readouterr().out.startswith("card 4\nlatent 4; in a running notebook, controls turn to the other 9")
    with pytest.raises(CourseError, match="start=10 must lie in 0 to 9"):
        browse(Cards(), Card, start=10)


def test_controls_step_search_and_sort():
    box = controls(Cards(), Card, 0, ("number", "density"))
    (back, on, number), (query, order, said) = (row.children for row in box.children[:2])
    shown = box.children[2]
    on.click()
    assert (number.value, shown.value) == (1, "<p>card 1</p>")
    back.click(), back.click()
    assert number.value == 9 and "card 9 is &lt;lost&gt;" in shown.value
    query.value = "dog"
    assert said.value == "4 latents" and number.value == 0 and shown.value == "<p>card 0</p>"
    on.click()
    assert number.value == 3
    order.value = "density"
    assert number.value == 9
    on.click()
    assert shown.value == "<p>card 6</p>"
    query.value = "unicorn"
    assert said.value == "nothing found" and shown.value == "<p>card 6</p>"
    on.click()
    assert number.value == 6
