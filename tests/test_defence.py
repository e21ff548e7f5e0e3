"""Defending a card: what a card shows stands, and each gap and each wrong number is named."""

import numpy as np
import pytest

from course_utils.errors import CourseError
from course_utils.evidence import ClaimCard, Estimate, Rule, defend

FOR = "Ablating the latents lowers the advantage by three quarters, far more than any null of equal density does."
AGAINST = "The four latents were chosen on one kind of question, and may hold up grammar rather than the concept."
NULLS = {"matched": np.linspace(-0.1, 0.1, 99), "random": Estimate(0.0, -0.1, 0.1, 99)}


MEASURED = Estimate(0.92134, 0.9151, 0.9272, 80)


def card(effect=MEASURED, nulls=NULLS, **more):
    p = dict.fromkeys(nulls, 0.01)
    return ClaimCard(**{
        "id": "C09", "text": "A claim.", "source": "paper", "statistic": "share", "prediction": "above 0.5",
        "rule": Rule("greater", 0.5), "effect": effect, "nulls": nulls, "p": p, "notebook": "09", "model": "organism",
        "objection": "Other latents might do the same.", "seconds": 1.0} | more)


def said(**changes):
    right = {"value": 0.92134, "low": 0.9151, "high": 0.9272, "verdict": "holds", "nulls": ["matched", "random"],
             "case_for": FOR, "case_against": AGAINST}
    return right | changes


def test_a_complete_and_right_defence_stands():
    found = defend(card(), **said())
    assert found.stands and found.faults == () and repr(found).startswith("✓ The defence stands")
    assert "<ul>" not in found._repr_html_()


@pytest.mark.parametrize("effect", [
    MEASURED, Estimate(0.333333, 0.333333, 0.333333, 9), Estimate(1234.56, 1200.4, 1301, 8),
    Estimate(-3.14159e-7, -4.2e-7, -1.23456e-7, 80), *(Estimate(m, m - 0.7 * w, m + w, 9) for m, w in
                                                      np.random.default_rng(0).normal(1, 0.3, (40, 2)) ** 2),
])
def test_numbers_read_off_the_card_stand_and_others_do_not(effect):
    assert str(effect) in str(card(effect))
    value, rest = str(effect).split(" [")
    low, high = rest.rstrip("]").split(", ")
    rule = Rule("greater", -100.0)
    shown = said(value=float(value), low=float(low), high=float(high))
    assert defend(card(effect, rule=rule), **shown).faults == ()
    width = max(effect.high - effect.low, abs(effect.value) / 10)
    for name in ("value", "low", "high"):
        wrong = shown | {name: shown[name] + width / 8}
        (fault,) = defend(card(effect, rule=rule), **wrong).faults
        assert fault.startswith(f"{name}=") and str(effect) in fault


@pytest.mark.parametrize(("change", "fault"), [
    ({"value": 0.95}, "value=0.95 is not what was measured; read the card again: 0.921 [0.915, 0.927]."),
    ({"low": 0.9272}, "low=0.9272 is not what was measured"), ({"high": 0.9151}, "high=0.9151 is not what was"),
    ({"value": -0.92134}, "value=-0.92134 is not"), ({"high": float("inf")}, "high=inf is not what was measured"),
    ({"value": float("nan")}, "value=nan is no number; the card has one."),
    ({"verdict": "hold"}, "verdict='hold' is none of holds, holds in part, does not hold, not testable here."),
    ({"verdict": "holds in part"}, "verdict='holds in part' does not follow from rule and numbers: the whole interval"),
    ({"nulls": ["matched"]}, "nulls leave out 'random': whoever attacks"),
    ({"nulls": []}, "nulls leave out 'matched', 'random'"),
    ({"nulls": {"matched", "random", "shuffled"}}, "nulls name 'shuffled', which was not measured; the card has"),
    ({"case_for": "It is so."}, "case_for is too short to be an argument; say in at least 12 words what speaks for it"),
    ({"case_against": " ".join(["word"] * 11)}, "case_against is too short to be an argument; say in at least 12 words "
                                               "what speaks against it"),
    ({"case_against": f"  {FOR.upper()}\n"}, "case_for and case_against are the same text"),
])
def test_each_gap_is_named_alone(change, fault):
    found = defend(card(), **said(**change))
    assert not found.stands and len(found.faults) == 1 and found.faults[0].startswith(fault)
    assert repr(found) == f"1 to mend:\n✗ {found.faults[0]}"


def test_a_dozen_words_are_enough_and_the_cards_own_objection_is_not():
    twelve = " ".join(["word"] * 12)
    assert defend(card(), **said(case_against=twelve)).stands
    for name in ("case_for", "case_against"):
        (fault,) = defend(card(objection=f"{twelve}  WORD"), **said(**{name: f"{twelve}\nword"})).faults
        assert fault.startswith("one argument is the card's own objection, word for word")


def test_all_gaps_are_named_at_once_and_in_order():
    wrong = said(value=0.1, low=0.2, high=0.3, verdict="no", nulls=["x"], case_for="a", case_against="a")
    found = defend(card(), **wrong)
    begins = ["value=", "low=", "high=", "verdict=", "nulls leave", "nulls name", "case_for is", "case_against is",
              "case_for and"]
    assert len(found.faults) == 9
    assert all(fault.startswith(begin) for fault, begin in zip(found.faults, begins, strict=True))
    assert repr(found).startswith("9 to mend:\n✗ value=") and found._repr_html_().count("<li>") == 9


def test_html_shows_what_was_said_and_runs_none_of_it():
    html = defend(card(), **said(nulls=["matched", "random", "<script>alert(1)</script>"]))._repr_html_()
    assert "<script" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_a_card_without_an_effect_cannot_be_defended():
    with pytest.raises(CourseError, match="C09 has no effect to defend: the model is too small"):
        defend(card(None, {}, obstacle="the model is too small."), **said())
