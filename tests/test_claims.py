"""The 32 claims, the rule that comes before the effect, the computed verdict, and the ledger that loses nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from course_utils.errors import CourseError
from course_utils.evidence import Estimate, Ledger, Rule, claim, claims
from course_utils.evidence.ledger import COLUMNS
from course_utils.paths import DATA

SHARED = Path(__file__).parents[2] / "shared"
FAR = np.random.default_rng(0).normal(-5, 0.1, size=200)  # a null that any effect near 0 rejects upwards
ROW = dict.fromkeys(COLUMNS, 0) | {"id": "C01", "model": "organism", "notebook": "05", "statistic": "share"}


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    return tmp_path


@pytest.fixture
def brief():
    if not (SHARED / "claims.md").is_file():
        pytest.skip("the list of claims lies beside the repository only where the course is written")
    return {name: (SHARED / f"{name}.md").read_text(encoding="utf-8") for name in ("claims", "references")}


def trial(rule=None, name="C26", **more):
    return claim(name).predict(rule=rule or Rule("greater", 0.0), **more)


def test_there_are_32_claims_in_order():
    assert list(claims()) == [f"C{i:02}" for i in range(1, 33)]
    for entry in claims().values():
        assert entry.text.endswith(".") and "\n" not in entry.text and entry.nulls, entry.id
        assert all(re.fullmatch(r"\d\d", n) and int(n) <= 15 for n in entry.notebooks), entry.id
        assert "press" not in entry.source or "press" in entry.says.lower(), f"{entry.id} hides a press claim"


def test_sources_and_notebooks_are_those_of_the_list(brief):
    rows = re.findall(r"\| (C\d\d) \| (.*) \| ([\d, ]+) \|", brief["claims"])
    assert len(rows) == 32
    for name, text, notebooks in rows:
        tag = re.search(r"\[([PL](?:, [PL])?)(?::[^\]]*)?\]", text)[1]
        assert ("press" in claim(name).source, "paper" in claim(name).source) == ("P" in tag, "L" in tag), name
        assert claim(name).notebooks == tuple(notebooks.replace(" ", "").split(",")), name


def test_every_work_and_number_cited_stands_in_the_list(brief):
    both, squeezed = brief["references"] + brief["claims"], " ".join(brief["references"].split())
    for entry in claims().values():
        for cited in [entry.says, *(p.cite for p in entry.published)]:
            assert all(number in both for number in re.findall(r"\d{4}\.\d{5}", cited)), (entry.id, cited)
            assert all(f"{who} {year}" in squeezed or f"{who} et al. {year}" in squeezed for who, year in
                       re.findall(r"([A-Z]\w+) (?:et al\. )?(20\d\d)", cited)), (entry.id, cited)
        for item in entry.published:
            source = brief["claims"] if item.cite == "press" else brief["references"]
            assert all(n in source for n in re.findall(r"[\d.,]*\d", item.number)), (entry.id, item.number)
            assert (item.cite == "press") == (item.read == "press, unverified"), (entry.id, item)


def test_an_unknown_claim_names_the_nearest():
    assert claim(" c26 ") is claim("C26")
    with pytest.raises(CourseError, match="id='C62' is not known; nearest: .*'C26'|nearest: 'C"):
        claim("C62")


@pytest.mark.parametrize(("change", "words"), [
    (lambda e: e.pop("against"), "claim C01 lacks the key 'against'"),
    (lambda e: e.update(agianst="x"), "claim C01: key='agianst' is not known; nearest: 'against'"),
    (lambda e: e.update(source=["pres"]), "claim C01: source='pres' is not known; nearest: 'press'"),
    (lambda e: e.update(claim=""), "claim C01: 'claim' must be a sentence"),
    (lambda e: e.update(nulls=[]), "claim C01: 'nulls' must be a list"),
    (lambda e: e.update(published=[{"number": "1"}]), "claim C01: 'published' needs the keys number, what"),
    (lambda e: e.update(published=[{"number": "1", "what": "x", "cite": "y", "read": "recalled"}]), "read='recalled'"),
    (lambda e: e.update(id="C02"), "claim C02 is there twice"),
])
def test_a_broken_entry_is_named_with_its_key(tmp_path, change, words):
    entries = yaml.safe_load((DATA / "claims.yaml").read_text(encoding="utf-8"))
    change(entries[0])
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    with pytest.raises(CourseError) as error:
        claims(path)
    assert words in str(error.value)


def test_a_file_that_is_no_list_of_claims_is_refused(tmp_path):
    for text, words in (("a: [", "is not YAML"), ("a: 1", "must be a list of claims")):
        path = tmp_path / f"{len(text)}.yaml"
        path.write_text(text)
        with pytest.raises(CourseError, match=words):
            claims(path)


@pytest.mark.parametrize(("rule", "interval", "p", "verdict"), [
    (Rule("greater", 0.1), (0.2, 0.3), 0.01, "holds"),
    (Rule("greater", 0.1), (0.2, 0.3), 0.06, "holds in part"),
    (Rule("greater", 0.1), (0.05, 0.3), 0.01, "holds in part"),
    (Rule("greater", 0.1), (0.0, 0.05), 0.01, "does not hold"),
    (Rule("less", 0.1), (0.0, 0.05), 0.01, "holds"),
    (Rule("less", 0.1), (0.2, 0.3), 0.01, "does not hold"),
    (Rule("less", 0.1), (0.05, 0.3), 0.9, "holds in part"),
    (Rule("inside", (0.1, 0.4)), (0.2, 0.3), 0.01, "holds"),
    (Rule("inside", (0.1, 0.4)), (0.2, 0.5), 0.01, "holds in part"),
    (Rule("inside", (0.1, 0.4)), (0.0, 0.05), 0.01, "does not hold"),
    (Rule("inside", (0.1, 0.4)), (0.5, 0.6), 0.01, "does not hold"),
    (Rule("greater", 0.1, alpha=0.001), (0.2, 0.3), 0.01, "holds in part"),
])
def test_the_verdict_follows_from_interval_and_nulls(rule, interval, p, verdict):
    effect = Estimate(sum(interval) / 2, *interval, n=50)
    assert rule.decide(effect, {"easy": 0.0001, "hard": p})[0] == verdict
    assert ("'hard'" in rule.decide(effect, {"easy": 0.0001, "hard": p})[1]) == (
        p > rule.alpha and verdict == "holds in part")


def test_nulls_are_corrected_for_their_number():
    """Each null alone has p = .04 and is rejected; two of them have p = .08 and are not."""
    effect, null = Estimate(1.0, 0.9, 1.1, 50), np.r_[2.0, np.zeros(48)]
    one = trial().test(effect, nulls={"a": null}, notebook="04", model="m")
    two = trial().test(effect, nulls={"a": null, "b": null}, notebook="04", model="m")
    assert (one.p["a"], one.verdict) == (pytest.approx(0.04), "holds")
    assert (two.p["b"], two.verdict) == (pytest.approx(0.08), "holds in part")
    assert "'a', 'b'" in two.reason


def test_the_tail_follows_the_direction():
    effect = Estimate(0.0, -0.1, 0.1, 50)
    for rule, verdict in ((Rule("greater", -1.0), "holds"), (Rule("less", 1.0), "holds in part"),
                          (Rule("inside", (-1.0, 1.0)), "holds")):
        assert trial(rule).test(effect, nulls={"far below": FAR}, notebook="04", model="m").verdict == verdict


def test_a_claim_can_be_untestable_with_a_reason(build):
    card = trial().test(None, reason="no hub here", notebook="04", model="m")
    row, = Ledger().rows()
    assert (card.verdict, card.reason, row["verdict"], row["value"]) == (
        "not testable here", "no hub here", "not testable here", None)
    assert "no hub here" in card._repr_html_()


@pytest.mark.parametrize(("call", "words"), [
    (lambda: claim("C26").test(Estimate(1, 0, 2, 9), nulls={"far": FAR}), "no rule yet; fix it before the effect"),
    (lambda: trial().test(Estimate(1.0, 0.5, 2.0, 9), notebook="04", model="m"), "C26 has no null"),
    (lambda: trial().test(None, notebook="04", model="m"), "say in reason='...'"),
    (lambda: trial().test(Estimate(1.0, 2.0, 0.5, 9), nulls={"a": FAR}, notebook="04", model="m"), "upside down"),
    (lambda: trial().test(Estimate(1.0, float("nan"), 2.0, 9), nulls={"a": FAR}, notebook="04", model="m"), "NaN"),
    (lambda: trial().test(Estimate(float("nan"), 1.0, 2.0, 9), nulls={"a": FAR}, notebook="04", model="m"), "NaN"),
    (lambda: trial().test(Estimate(1.0, 0.5, 2.0, 9), nulls={"a": [1.0, float("nan")]}, notebook="04", model="m"),
     "nulls['a'] holds 1 NaN"),
    (lambda: Rule("more", 0.1), "direction='more' is not known"),
    (lambda: Rule("inside", 0.1), "'inside' needs (low, high)"),
    (lambda: Rule("greater", (0.1, 0.2)), "need one finite number"),
    (lambda: Rule("inside", (0.3, 0.2)), "low below high"),
    (lambda: Rule("less", float("nan")), "need one finite number"),
    (lambda: Rule("less", 0.1, alpha=5.0), "alpha=5.0 must lie between 0 and 1"),
])
def test_bad_input_gets_one_sentence_and_no_row(build, call, words):
    with pytest.raises(CourseError) as error:
        call()
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (build / "ledger.json").exists()


def test_the_card_says_everything_and_needs_nothing():
    card = trial(statistic="share <of> dead").test(
        Estimate(1.0, 0.8, 1.2, 50), notebook="04", model="organism", seconds=2.0,
        nulls={"far & wide": FAR, "seeds": [0.1, 0.2, 0.3], "twin": Estimate(0.0, -0.1, 0.1, 50)})
    page = ElementTree.fromstring(card._repr_html_().replace("&#x27;", "'"))  # well-formed, hence escaped
    text = " ".join(page.itertext())
    for part in (card.text, "share <of> dead", "1.00 [0.80, 1.20]", "far & wide", "3 values are too few to reject",
                 card.verdict, card.objection, "above 0", "Gao et al. 2024", "notebook 04, organism, 2.0 s"):
        assert part in text and part in str(card), part
    assert not re.search(r"https?:|<script|<img|<link", card._repr_html_())
    assert page.attrib["aria-label"] == f"Claim card C26: {card.verdict}"
    assert len(page.findall(".//th[@scope='row']")) == 12


def test_the_ledger_has_strict_complete_rows_and_replaces_its_own(build):
    first = trial().test(Estimate(1.0, 0.8, 1.2, 50), nulls={"far": FAR}, notebook="04", model="organism")
    trial().test(Estimate(1.0, 0.8, 1.2, 50), nulls={"far": FAR}, notebook="04", model="gpt2")
    trial(statistic="another").test(Estimate(1.0, 0.8, 1.2, 50), nulls={"far": FAR}, notebook="04", model="gpt2")
    trial().test(Estimate(-1.0, -1.2, -0.8, 60), nulls={"far": FAR}, notebook="04", model="organism")
    rows = json.loads((build / "ledger.json").read_text(), parse_constant=pytest.fail)
    assert rows == Ledger().rows() and [r["model"] for r in rows] == ["gpt2", "gpt2", "organism"]
    assert set(COLUMNS) <= rows[0].keys() and first.verdict == "holds"
    assert (rows[2]["verdict"], rows[2]["n"], rows[2]["nulls"]["far"]["n"]) == ("does not hold", 60, 200)
    assert rows[2]["nulls"]["far"]["p"] == pytest.approx(1 / 201)
    assert not [p.name for p in build.iterdir() if ".tmp" in p.name]


WRITER = """
import sys, course_utils.evidence.ledger as ledger
if sys.argv[1] == "lock file":
    ledger.fcntl = None
book = ledger.Ledger()
for i in range(10):
    for name in (f"own {sys.argv[2]}.{i}", "shared"):
        book.record(dict.fromkeys(ledger.COLUMNS, 0) | {"id": name})
"""


@pytest.mark.parametrize("lock", ["fcntl", "lock file"])
def test_eight_processes_lose_no_row(build, lock):
    root = Path(__file__).parents[1]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, lock, str(i)], cwd=root) for i in range(8)]
    assert [w.wait(timeout=60) for w in writers] == [0] * 8
    assert {r["id"] for r in Ledger().rows()} == {f"own {w}.{i}" for w in range(8) for i in range(10)} | {"shared"}
    assert len(Ledger().rows()) == 81


@pytest.mark.parametrize("text", ["[{", "", '{"id": 1}', '[{"id": "C01"}]', '[{"id": NaN}]', b"\xff\xfe\x00"])
def test_a_corrupt_ledger_is_set_aside(build, text):
    spoilt = text if isinstance(text, bytes) else text.encode()
    (build / "ledger.json").write_bytes(spoilt)
    with pytest.warns(UserWarning, match="is kept as ledger.corrupt-"):
        Ledger().record(ROW)
    assert Ledger().rows() == [ROW]
    aside, = build.glob("ledger.corrupt-*.json")
    assert aside.read_bytes() == spoilt


def test_what_is_no_json_leaves_the_ledger_as_it_was(build):
    Ledger().record(ROW)
    for change, words in (({"value": float("nan")}, "is not strict JSON"), ({"n": np.zeros(2)}, "is not strict JSON")):
        with pytest.raises(CourseError, match=words):
            Ledger().record(ROW | change)
    with pytest.raises(CourseError, match="lacks verdict"):
        Ledger().record({k: v for k, v in ROW.items() if k != "verdict"})
    assert Ledger().rows() == [ROW]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CourseError, match="cannot be written in .*file .*set COURSE_BUILD"):
        Ledger(tmp_path / "file" / "ledger.json").record(ROW)


def test_a_lock_file_left_behind_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("course_utils.evidence.ledger.fcntl", None)
    monkeypatch.setattr("course_utils.evidence.ledger._PATIENCE", 0.05)
    (tmp_path / "ledger.json.lock").touch()
    with pytest.raises(CourseError, match="ledger.json.lock stays locked"):
        Ledger().record(ROW)
