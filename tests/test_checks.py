"""The check itself: every way of being wrong has its sentence, and nothing an answer does outlives the check."""

import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

import numpy as np
import pytest
import torch
from proof import complaints

from course_utils.errors import CourseError
from course_utils.exercises import ExerciseError, book, check, sandbox
from course_utils.exercises.book import Exercise
from course_utils.exercises.compare import brief, difference, kind
from course_utils.exercises.mutants import mutants, score

Pair = namedtuple("Pair", "a b")
t, a = torch.tensor, np.array


@pytest.mark.parametrize(("got", "want", "said"), [
    (None, t([1.0]), "answer is None, expected a tensor: is a 'return' missing?"),
    (None, 1.0, "answer is None, expected a number (float): is a 'return' missing?"),
    (None, "yes", "is a 'return' missing?"),
    (3, None, "answer is a number (int), expected None"),
    (a([1.0]), t([1.0]), "answer is a numpy array, expected a tensor"),
    ([1.0], t([1.0]), "answer is a list, expected a tensor"),
    (t([1.0]), a([1.0]), "answer is a tensor, expected a numpy array"),
    (t(1.0), t([1.0]), "answer has shape [], expected [1]: an axis of size 1 is missing (keepdim, unsqueeze)"),
    (torch.zeros(2, 1, 3), torch.zeros(2, 3), "has shape [2 1 3], expected [2 3]: an axis of size 1 is left over"),
    (torch.ones(2, 3), torch.ones(3, 2), "has shape [2 3], expected [3 2]: it is the transpose"),
    (torch.zeros(2, 3), torch.ones(3, 2), "has shape [2 3], expected [3 2]: the axes are swapped"),
    (torch.arange(9.0).view(3, 3).T, torch.arange(9.0).view(3, 3), "given 6 (difference 4); it is the transpose"),
    (torch.zeros(2, 2), torch.zeros(5), "answer has shape [2 2], expected [5]"),
    (t([1.0]).double(), t([1.0]), "answer has dtype float64, expected float32 (the values are right)"),
    (t([2.0]).double(), t([1.0]), "answer has dtype float64, expected float32"),
    (t([True]), t([1.0]), "answer has dtype bool, expected float32 (the values are right)"),
    (torch.zeros(1, device="meta"), t([1.0]), "answer is on the device meta, expected cpu"),
    (t([[1.0, float("nan")]]), t([[1.0, 2.0]]), "answer holds 1 NaN among 2 values, the first at [0, 1]"),
    (float("nan"), 1.0, "answer holds 1 NaN among 1 values"),
    (t([1.0, 2.0, 9.0]), t([1.0, 2.0, 3.0]), "1 of 3 values of answer differ, most at [2]: expected 3, given 9"),
    (t([1.0, float("inf")]), t([1.0, 2.0]), "most at [1]: expected 2, given inf (difference inf)"),
    (t([-1.0, 2.0]), t([1.0, -2.0]), "; the sign is wrong"),
    (t([2.0, 4.0]), t([1.0, 2.0]), "; all are 2 times what is expected"),
    (t([2, 3, 1]), t([1, 2, 0]), "; all are off by 1"),
    (t([10000001]), t([10000000]), "answer: expected 10000000, given 10000001"),
    (t([True, False]), t([True, True]), "expected True, given False"),
    (1.5, 2.5, "answer: expected 2.5, given 1.5"),
    (-2.5, 2.5, "; the sign is wrong"),
    (2.0, 2, "answer is a number (float) (2.0), expected a number (int)"),
    (1, True, "answer is a number (int) (1), expected True or False"),
    (True, 1.0, "answer is True or False (True), expected a number (float)"),
    (t([1.0]), 1.0, "answer is a tensor, expected a number (float)"),
    (1.5, t(2.5), "answer: expected 2.5, given 1.5"),
    (float("nan"), t(2.5), "answer holds 1 NaN among 1 values"),
    (2.0, t(2), "answer is a number (float) (2.0), expected a number (int64)"),
    (1, t(True), "answer is a number (int) (1), expected True or False"),
    (None, t(1.0), "answer is None, expected a tensor: is a 'return' missing?"),
    (1.0, t([1.0]), "answer is a number (float), expected a tensor"),
    ("1.0", t(1.0), "answer is a string, expected a tensor"),
    ("no", "yes", "answer: expected 'yes', given 'no'"),
    (1, "yes", "answer is a number (int), expected a string"),
    ([1, 2], [1], "answer has 2 items, expected 1"),
    ((1, 2), Pair(1, 2), "answer is a tuple, expected a Pair"),
    (Pair(1, t([2.0])), Pair(1, t([3.0])), "answer[1]: expected 3, given 2"),
    ({"a": 1}, {"a": 1, "b": 2}, "answer has the keys ['a'], expected ['a', 'b']"),
    ({"a": [t(1.0), 0]}, {"a": [t(1.0), 1]}, "answer['a'][1]: expected 1, given 0"),
    ([1], {"a": 1}, "answer is a list, expected a dict"),
    ({1}, {2}, "answer: expected {2}, given {1}"),
    (a(["a"]), a(["b"]), "expected array [1]"),
    (t([1 + 1j]), t([1 - 1j]), "expected 1-1j, given 1+1j"),
])
def test_every_difference_has_its_sentence(got, want, said):
    assert said in difference(got, want, 1e-4, 1e-5)


@pytest.mark.parametrize(("got", "want"), [
    (t([1.0, float("nan")]), t([1.00001, float("nan")])), (t(2.0), 2.0), (np.float32(2), 2.0), (2, 2.0),
    (np.int64(2), 2), (t(2), 2), (t(True), True), (np.bool_(True), True), (2.0, t(2.0)), (2, t(2.0)), (2, t(2)),
    (np.float64(2), t(2.0)), (2.0, a(2.0)), (True, t(True)), (1.0, t(1.0).half()),  # tensors without axes
    ([1, 2], (1, 2)), (Pair(1, 2), Pair(1, 2)), ("a", "a"), (None, None),
    ({"b": 1, "a": t([1.0])}, {"a": t([1.0]), "b": 1}),
    (t([1.0], requires_grad=True), t([1.0])),
    (t([1.0]).bfloat16(), t([1.0]).bfloat16()), (torch.eye(2).to_sparse(), torch.eye(2)), ({1, 2}, {2, 1}),
    (torch.nn.Parameter(t([1.0])), t([1.0])), (torch.zeros(0, 3), torch.zeros(0, 3)), (print, print), (1 + 2j, 1 + 2j),
])
def test_what_is_as_good_as_expected_is_no_difference(got, want):
    assert difference(got, want, 1e-4, 1e-5) is None


def test_values_are_shown_briefly():
    assert brief(t([[1, 2]])) == "tensor [1 2] int64 [[1, 2]]"
    assert brief(torch.zeros(20, 5)) == "tensor [20 5] float32" and "meta" not in brief(torch.zeros(2, device="meta"))
    assert brief({c: np.zeros(20) for c in "abcdefgh"}) == \
        "{" + ", ".join(f"'{c}': array [20] float64" for c in "abcdef") + ", … 8 in all}"
    assert brief([torch.zeros(3, 9)] * 7) == "[" + "tensor [3 9] float32, " * 6 + "… 7 in all]"
    assert brief({"a": 1}) == "{'a': 1}" and brief([1.5, None]) == "[1.5, None]" and brief(()) == "()"
    assert brief((1.23456, "x" * 200, {"k": None}, len)).startswith("(1.235, 'xxx")
    assert len(brief("x" * 10_000)) < 100 and brief(Pair(1, 2)) == "Pair(1, 2)" and brief(len) == "the function len"
    assert kind(1) == "a number (int)" and kind(Pair(1, 2)) == "a Pair" and kind(Exercise) == "a type"


# --- an exercise, answered in every way -----------------------------------------------------------------------------


@pytest.fixture
def ex():
    made = Exercise("99.5", "the scaled row", stars=1, minutes=5, lines=1, hints=("a", "b"))

    @made.reference
    def scaled(x, k):
        return x * k + 1

    @made.right
    def _(x, k):
        return torch.add(torch.mul(x, k), 1)

    @made.right
    def _(x, k):
        return torch.stack([row * k for row in x]) + 1

    @made.wrong("added", "You add k.")
    def _(x, k):
        return x + k + 1

    @made.wrong("in place", "You change x itself.")
    def _(x, k):
        x *= k
        return x + 1

    @made.wrong("no axis", "A number is no row.")
    def _(x, k):
        raise ValueError("no axis")

    @made.cases
    def _(rng):
        yield torch.tensor([1.0, -2.0]), 2.0
        yield torch.from_numpy(rng.normal(size=3)), 3.0

    yield made
    book._BOOK.pop(made.id)


def told(ex, answer, **options):
    """Return what a student is told about an answer."""
    fault = check.examine(ex, answer, **options)
    return "right" if fault is None else str(ExerciseError(ex, fault))


def test_the_exercise_is_fit_and_its_cases_are_the_same_each_time(ex):
    assert complaints(ex) == []
    first, second = check.trials(ex), check.trials.__wrapped__(ex)
    assert difference([tuple(x) for x in first], [tuple(x) for x in second]) is None


def eats_exceptions(x, k):
    while True:
        try:
            while True:
                pass
        except Exception:
            pass


def eats_everything(x, k):
    while True:
        try:
            len(str(x))
        except:  # noqa: E722  (a student's)
            pass


def turns_it_into_a_value(x, k):
    try:
        while True:
            pass
    except BaseException:
        return x * k + 1


def turns_it_into_an_error(x, k):
    try:
        while True:
            pass
    except BaseException as error:
        raise ValueError("hidden") from error


ENDLESS = [eats_exceptions, eats_everything, turns_it_into_a_value, turns_it_into_an_error]


@pytest.mark.parametrize(("where", "endless"), [
    *(("main thread", answer) for answer in ENDLESS),
    *(("other thread", answer) for answer in ENDLESS if answer is not eats_everything)])  # Python cannot stop that one
def test_an_endless_loop_is_stopped_wherever_it_runs(ex, endless, where, monkeypatch):
    # An alarm may ring while garbage is collected: harmless, but it would interrupt the hook of pytest as well.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    check.trials(ex)
    begun, said = time.monotonic(), []
    work = lambda: said.append(told(ex, endless, limit=0.3))  # noqa: E731
    if where == "main thread":
        work()
    else:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "Your answer was stopped" in said[0] and "is there a loop that never ends" in said[0]
    assert time.monotonic() - begun < 60  # it ends; how soon depends on what else the machine does


def test_the_time_limit_is_for_all_cases_together(ex):
    def slow(x, k):
        time.sleep(0.2)
        return x * k + 1

    assert told(ex, slow, limit=2.0) == "right"
    assert "was stopped in the line 'time.sleep(0.2)'" in told(ex, slow, limit=0.3)


def test_signal_handlers_and_timers_are_as_before(ex):
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        told(ex, eats_exceptions, limit=0.2)
        assert signal.getitimer(signal.ITIMER_REAL)[0] <= 0.25 and not rang
        time.sleep(0.4)
        assert rang == [1]
        assert signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGALRM, before)


def test_the_users_own_interrupt_goes_through(ex):
    def interrupted(x, k):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        check.examine(ex, interrupted)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


RANDOM = """
import random, numpy as np, torch
from course_utils.exercises import check
from course_utils.exercises.book import Exercise
def seed(): random.seed(1), np.random.seed(1), torch.manual_seed(1)
def numbers(): return random.random(), np.random.rand(), torch.rand(1).item()
def draws(x):
    numbers(), torch.manual_seed(7)
    return x + 1
ex = Exercise("99.9", "a draw", stars=1, minutes=1, lines=1, hints=("a", "b"))
ex.reference(lambda x: x + 1)
ex.cases(lambda rng: iter([torch.randn(2), torch.from_numpy(np.random.rand(3)), random.random()]))
seed()
expected = numbers()
seed()
assert check.examine(ex, draws) is None
print(numbers() == expected, check.trials(ex)[0].args)
"""


def test_random_numbers_go_on_as_if_there_had_been_no_check():
    runs = [subprocess.run([sys.executable, "-c", RANDOM], capture_output=True, text=True) for _ in range(2)]
    assert runs[0].stdout.startswith("True (tensor([") and runs[0].stdout == runs[1].stdout, runs[0].stderr


def test_errors_are_told_with_the_students_own_line_and_chained(ex):
    def breaks(x, k):
        return x @ k.T

    fault = check.examine(ex, breaks)
    assert isinstance(fault.outcome.error, AttributeError)
    assert "stopped in the line 'return x @ k.T' with AttributeError: 'float' object has no attribute 'T'" in \
        fault.sentence
    error = ExerciseError(ex, fault)
    error.__cause__ = check.without_engine(fault.outcome.error)
    assert "exercises" not in error.__cause__.__traceback__.tb_frame.f_code.co_filename
    shown = "\n".join(error._render_traceback_())
    assert "return x @ k.T" in shown and "sandbox.py" not in shown
    assert shown.endswith('hint("99.5") helps; reveal("99.5") shows the answer.')


def deep(x, k):
    return deep(x, k)


@pytest.mark.parametrize(("answer", "said"), [
    (deep, "Your answer calls itself without end in the line 'return deep(x, k)' (RecursionError)."),
    (lambda x, k: sys.exit(1), "Your answer ends the program"),
    (lambda x, k: x.add_(1), "Your answer changed its argument x in place; work on a copy"),
    (lambda x, k: print("look", x.shape), "It printed:\n    look torch.Size([2])"),
    (lambda x, k: (row for row in x), "Answer is a generator, expected a tensor."),
    (lambda x, k: x + torch.rand(2), "called again with the same arguments, it gives something else"),
    (lambda x, k: (x * k + 1).tolist(), "Answer is a list, expected a tensor."),
    (lambda x, k: x * k, "most at [0]: expected 3, given 2 (difference 1); all are off by -1."),
    (lambda x, k: (x * k + 1).numpy(), "given array [2] float32 [3, -3]"),
])
def test_every_misbehaviour_has_its_sentence(ex, answer, said):
    assert said in told(ex, answer)


def test_an_answer_that_is_right_only_once_is_caught(ex):
    calls = []

    def remembers(x, k):
        calls.append(1)
        return x * k + (1 if len(calls) < 3 else 2)

    assert "A second call with the same arguments went wrong" in told(ex, remembers)


def test_gradients_and_printing_are_fine(ex, capsys):
    def answer(x, k):
        print("I was here")
        w = torch.ones(1, requires_grad=True, dtype=x.dtype)
        return w * x * k + 1

    with torch.no_grad():
        assert told(ex, answer) == "right"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_known_mistake_is_named_even_if_it_raises_or_changes_its_input(ex, place):
    wrong = ex.wrongs[place]
    assert f"Looks like: {wrong.name}. {wrong.text}" in told(ex, wrong.answer)
    assert wrong.name not in told(ex, lambda x, k: x)


def test_an_answer_that_is_not_unique_is_examined_by_the_exercises_own_comparison(ex):
    def same_length(got, want, x, k):
        return None if torch.isclose(got.norm(), want.norm()) else f"the length is {got.norm():.2f} at k = {k:g}"

    ex.compare = same_length
    assert told(ex, lambda x, k: -(x * k + 1)) == "right"
    assert "The length is 2.24 at k = 2." in told(ex, lambda x, k: x)
    assert "expected, for example, tensor [2]" in told(ex, lambda x, k: x)
    assert "(AttributeError when it was examined: 'list'" in told(ex, lambda x, k: [1.0])
    assert "is a 'return' missing?" in told(ex, lambda x, k: None)


def test_an_exercise_that_cannot_judge_says_so():
    empty = Exercise("99.6", "nothing", stars=1, minutes=1, lines=1, hints=("a", "b"))
    broken = Exercise("99.7", "broken", stars=1, minutes=1, lines=1, hints=("a", "b"))
    empty.answer, broken.answer = (lambda: 1), (lambda x: 1 / x)
    empty.cases(lambda rng: iter(()))
    broken.cases(lambda rng: iter([0]))
    with pytest.raises(CourseError, match="99.6 has no cases"):
        check.trials(empty)
    with pytest.raises(CourseError, match="99.7 fails on its own case 1"):
        check.trials(broken)
    broken.cases(lambda rng: iter([(i for i in range(3))]))
    with pytest.raises(CourseError, match="case 1 of 99.7 holds what cannot be copied: cannot pickle 'generator'"):
        check.trials(broken)


def test_an_unfit_exercise_is_complained_about(ex):
    ex.wrongs += [book.Wrong("right after all", "…", ex.rights[0]), book.Wrong("added too", "…", ex.wrongs[0].answer)]
    ex.rights[1] = lambda x, k: x
    said = " | ".join(complaints(ex))
    assert "right answer 2 does not pass" in said and "the mistake 'right after all' passes" in said
    assert "'added too' is taken for another: added" in said


def test_a_thread_that_cannot_be_stopped_is_left_behind(monkeypatch):
    code = ("import time; from course_utils.exercises import sandbox; sandbox._alarm_works = lambda: False\n"
            "o = sandbox.call(lambda: time.sleep(5), (), 0.1)\nprint(type(o.error).__name__, o.seconds < 3)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert out.stdout == "TimeUp True\n", out.stderr
    monkeypatch.setattr(sandbox, "_alarm_works", lambda: False)
    assert sandbox.call(lambda: 3, (), 1.0).value == 3
    assert isinstance(sandbox.call(lambda: sys.exit(), (), 1.0).error, SystemExit)


# --- mutants --------------------------------------------------------------------------------------------------------


def sample_answer(x, k=1.0, *, eps=1e-9):
    """Doc."""
    total = 0
    for i in range(1, len(x)):
        if x[i] > 0 and not k == 2:
            total += x[:i].sum(0, keepdim=True) / (k - i + eps)
    x = torch.relu(x.T)
    return total @ x


def test_mutants_are_one_change_each_and_all_different():
    made = [m.change.split(": ", 1)[1] for m in mutants(sample_answer)]
    assert len(made) > 35
    wanted = {"x[i] > 0 → x[i] >= 0", "x[i] > 0 → x[i] < 0", "not k == 2 → k == 2", "k == 2 → k != 2", ":i → :",
              "range(1, len(x)) → range(len(x), 1)", "1 → 2", "torch.relu(x.T) → x.T", "x.T → x", "2 → 3",
              "x[:i].sum(0, keepdim=True) → x[:i].sum(0)", "x[:i].sum(0, keepdim=True) → x[:i]", "True → False",
              "total @ x → x @ total", "total @ x → total", "k - i + eps → k - i", "k - i → i - k",
              "x[i] > 0 and (not k == 2) → x[i] > 0 or not k == 2", "x[i] > 0 and (not k == 2) → x[i] > 0",
              "x = torch.relu(x.T) → pass"}
    assert wanted - set(made) == set()
    assert not [change for change in made if "Doc" in change or "1e-09" in change]


def test_the_score_counts_what_the_cases_notice(ex):
    found = score(ex)
    assert found.mutants == found.killed + len(found.survivors) and found.killed == found.mutants > 5
    weak = Exercise("99.8", "weak", stars=1, minutes=1, lines=1, hints=("a", "b"))
    weak.answer = ex.answer
    weak.cases(lambda rng: iter([(torch.zeros(2), 2.0)]))
    assert "line 2: x * k → x / k" in [s.replace(s.split(":")[0], "line 2") for s in score(weak).survivors]
