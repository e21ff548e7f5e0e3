"""The engine as a student and an author meet it: empty, right, wrong; hints; notebooks synchronised and solved."""

import subprocess
import sys
import textwrap

import nbformat
import pytest
import torch

from course_utils import exercises
from course_utils.errors import CourseError
from course_utils.exercises import ExerciseError, book, exercise, hint, notebooks, progress, reveal, source
from course_utils.exercises.book import Exercise

V4 = nbformat.v4
HINTS = ("Think of `@`.", "It is `x @ w`.")


def declared(id: str = "99.1") -> Exercise:
    """Declare an exercise as a lesson module does."""
    ex = Exercise(id, "a product", stars=2, minutes=5, lines=1, hints=HINTS)

    @ex.reference
    def product(x, w):
        return x @ w

    @ex.wrong("transposed", "The matrix is the wrong way round.")
    def _(x, w):
        return w.T @ x.T

    @ex.cases
    def _(rng):
        yield torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [3.0]])
        yield torch.randn(2, 3), torch.randn(3, 4)

    return ex


@pytest.fixture(autouse=True)
def ex():
    made = declared()
    yield made
    book._BOOK.pop(made.id)
    progress._memory.clear()


def write(body: str, head: str = "def product(x, w):"):
    """Define a function from source, as a notebook cell does."""
    names = {"torch": torch, "exercise": exercise}
    exec(f"{head}\n{textwrap.indent(body, '    ')}", names)
    return names["product"]


@pytest.mark.parametrize("body", [
    "...", "pass", '"""What to do."""', '"""What to do."""\n...  # your code', "raise NotImplementedError",
    'raise NotImplementedError("your turn")', "'''Doc.'''\nraise NotImplementedError()", "pass\n...\npass"])
def test_an_empty_answer_is_told_in_one_line_and_replaced_by_the_reference(ex, body, capsys):
    assert exercise("99.1")(write(body)) is ex.answer
    assert capsys.readouterr().out == \
        '○ 99.1 a product: not attempted yet, so the reference answer is used. hint("99.1") helps.\n'
    assert progress.read() == {}


@pytest.mark.parametrize("body", [
    "return 5", "return x", "return 'a'", "return ...", "x + w", "y = ...\nreturn y", "raise ValueError",
    "raise NotImplementedError(x)"])
def test_a_poor_answer_is_still_an_answer(body):
    with pytest.raises(ExerciseError):
        exercise("99.1")(write(body))


def test_a_right_answer_is_used_from_there_on(capsys):
    mine = write("return torch.einsum('ij,jk->ik', x, w)")
    assert exercise("99.1")(mine) is mine
    assert capsys.readouterr().out == "✓ 99.1 a product: right; your function is used from here on.\n"


def test_a_wrong_answer_stops_with_the_mistakes_name_case_and_values():
    with pytest.raises(ExerciseError) as stop:
        exercise("99.1")(write("return (x @ w).T"))
    said = str(stop.value)
    first, second, *_ = said.splitlines()
    assert first == "99.1 · a product: not right yet"
    assert second == "  Looks like: transposed. The matrix is the wrong way round."
    assert "The smallest case that shows it (2 of 2):" in said  # the first is 1 × 1, its own transpose
    assert "it is the transpose" in said and 'hint("99.1")' in said and 'reveal("99.1")' in said
    assert stop.value.fault.known.name == "transposed" and isinstance(stop.value, CourseError)


@pytest.mark.parametrize(("head", "said"), [
    ("def product(x):", r"must be product\(x, w\), not product\(x\)"),
    ("def product(w, x):", r"not product\(w, x\)"),
    ("def product(x, w, *more, k=1):", r"not product\(x, w, k, more\)"),
    ("def product2(x, w): pass\ndef product(y, w):", r"not product\(y, w\)"),
])
def test_name_and_parameters_stay_as_they_are(head, said):
    with pytest.raises(ExerciseError, match=said):
        exercise("99.1")(write("return x", head))


def test_a_decorated_answer_is_an_answer_too():
    mine = torch.no_grad()(write("return x @ w"))
    assert exercise("99.1")(mine) is mine


def test_what_is_no_function_or_no_exercise_is_a_sentence(ex):
    with pytest.raises(CourseError, match="goes above a function; given int"):
        exercise("99.1")(3)
    with pytest.raises(CourseError, match="named by its number in quotes, such as '02.1'; given function"):
        exercise(ex.answer)
    with pytest.raises(CourseError, match="exercise='99.2' is not known; nearest: '99.1'"):
        exercise("99.2")


def test_progress_counts_tries_and_the_first_success(ex):
    with pytest.raises(ExerciseError):
        exercise("99.1")(write("return x"))
    exercise("99.1")(write("return x @ w"))
    first = progress.read()["exercises"]["99.1"]["right"]
    exercise("99.1")(write("return (x @ w)"))
    assert progress.read()["exercises"]["99.1"] == {"tries": 3, "right": first}


def test_hints_come_one_by_one_and_then_the_answer(ex, capsys):
    for _ in range(3):
        hint("99.1")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "**Hint 1 of 2.** Think of `@`." and said[1] == "**Hint 2 of 2.** It is `x @ w`."
    assert 'reveal("99.1")' in said[2]
    reveal("99.1")
    assert capsys.readouterr().out == "def product(x, w):\n    return x @ w\n"
    assert progress.read()["exercises"]["99.1"] == {"hints": 3, "revealed": True}


# --- declaring ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"id": "2.1"}, {"stars": 4}, {"minutes": 0}, {"hints": ("one",)}])
def test_an_exercise_that_a_notebook_could_not_show_is_refused(change):
    good = {"id": "98.1", "title": "t", "stars": 1, "minutes": 5, "lines": 1, "hints": HINTS}
    Exercise(**good)
    with pytest.raises(Exception, match="id=|needs|hints"):
        Exercise(**good | change)


def test_one_id_is_one_exercise_but_a_module_may_be_reloaded(ex):
    assert declared("99.1") is not ex
    other = Exercise("99.1", "another", stars=1, minutes=1, lines=1, hints=HINTS)
    with pytest.raises(CourseError, match="exercise 99.1 is there twice: in .*product and .*something"):
        @other.reference
        def something(x):
            return x


def test_exercises_come_in_order_and_only_of_the_notebook_asked_for():
    tenth = declared("99.10")
    second = declared("99.2")
    try:
        assert [ex.id for ex in exercises.everything("99")] == ["99.1", "99.2", "99.10"]
        assert exercises.everything("97") == []
    finally:
        book._BOOK.pop(tenth.id), book._BOOK.pop(second.id)


def test_the_heading_says_how_hard_and_how_long(ex):
    assert ex.header == "### Exercise 99.1 · a product · ★★☆ · 5 min · about 1 line"


def test_importing_the_engine_loads_no_lesson():
    code = "import sys, course_utils.exercises; print([m for m in sys.modules if '.lessons.' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- notebooks ------------------------------------------------------------------------------------------------------

STUB = '''y = 1  # before
@exercise("99.1")
def product(
    x, w,
):
    """Multiply.

    Twice.
    """
    ...  # your code


z = 2  # after'''


def test_the_answer_takes_the_stubs_place_and_nothing_else_moves(ex):
    assert source.filled(STUB, {"99.1": ex.answer}) == STUB.replace("...  # your code", "return x @ w")
    plain = '@exercise("99.1")\ndef product(x, w): ...\n1'
    assert source.filled(plain, {"99.1": ex.answer}) == '@exercise("99.1")\ndef product(x, w):\n    return x @ w\n1'
    plain = '@exercise("99.1")\ndef product(x, w):\n    # here\n    raise NotImplementedError\n'
    assert source.filled(plain, {"99.1": ex.answer}) == '@exercise("99.1")\ndef product(x, w):\n    return x @ w'


def answer(x):
    """Not this."""
    # Why it is so.
    def inner(y):
        return """
kept as it is"""

    return inner(x)  # the end


def test_an_answers_comments_and_inner_functions_travel_with_it():
    new = source.filled('@exercise("99.1")\ndef answer(x):\n    """Doc."""\n    ...', {"99.1": answer})
    assert new == ('@exercise("99.1")\ndef answer(x):\n    """Doc."""\n    # Why it is so.\n    def inner(y):\n'
                   '        return """\nkept as it is"""\n\n    return inner(x)  # the end')


def notebook():
    return V4.new_notebook(cells=[
        V4.new_markdown_cell("## Part\n\n### Exercise 99.1 · an old title · ★☆☆\nWhat to do."), V4.new_code_cell(STUB),
        V4.new_markdown_cell("Next.")])


def test_sync_renews_heading_hints_and_tags_and_is_then_content(ex):
    book_ = notebooks.sync(notebook())
    assert book_.cells[0].source == f"## Part\n\n{ex.header}\nWhat to do."
    assert book_.cells[1].metadata.tags == ["exercise"] and book_.cells[2].metadata.tags == ["hints", "99.1"]
    assert all(text in book_.cells[2].source for text in HINTS) and 'reveal("99.1")' in book_.cells[2].source
    assert book_.cells[2].source.count("<details>") == 3 and book_.cells[3].source == "Next."
    nbformat.validate(book_)
    before = nbformat.writes(book_)
    assert nbformat.writes(notebooks.sync(book_)) == before
    del book_.cells[0]  # without a text above, the heading gets a cell
    assert notebooks.sync(book_).cells[0].source == ex.header


def test_two_exercises_in_one_cell_are_refused():
    cell = V4.new_code_cell('@exercise("99.1")\ndef f(): ...\n@exercise("99.2")\ndef g(): ...')
    with pytest.raises(CourseError, match="99.1 and 99.2 share a cell"):
        notebooks.sync(V4.new_notebook(cells=[cell]))


def test_a_solved_notebook_has_the_answers_and_no_outputs():
    book_ = notebook()
    book_.cells[1].outputs = [V4.new_output("stream", text="old")]
    solved = notebooks.solve(book_)
    assert "    return x @ w" in solved.cells[1].source and solved.cells[1].outputs == []
    assert notebooks.ids(solved) == ["99.1"]
