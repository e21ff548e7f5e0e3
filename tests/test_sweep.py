"""The whole trial: its numbers by hand, what is kept and goes on, and that a re-check notices what was altered."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from course_utils import cli, paths
from course_utils.causality import (
    BY_ANSWER,
    BY_WORD,
    DIFF,
    RANDOM,
    Bench,
    Plan,
    answers,
    damage,
    kept_sweep,
    recheck,
    sweep,
    ways,
)
from course_utils.causality import kept as room
from course_utils.causality.bench import additions, mark
from course_utils.causality.kept import load, save
from course_utils.dictionaries import ready_sae
from course_utils.errors import CourseError
from course_utils.evidence import kept
from course_utils.interventions import ablate
from course_utils.lab import random_twin

CONCEPTS = ("entity:animal:tiger", "entity:country:France")


@pytest.fixture(scope="module")
def saes(lab):
    return {"wide": ready_sae(lab), "narrow": ready_sae(lab, width=512)}


@pytest.fixture(scope="module")
def plan(lab):
    return Plan(lab.middle_hook, CONCEPTS, n=4, n_text=40, n_tokens=4000, ks=(1, 4), doses=(1.0,), n_null=3)


@pytest.fixture(scope="module")
def acts(lab, saes, plan):
    return Bench(lab, plan, saes).acts


@pytest.fixture(scope="module")
def made(lab, plan, saes, acts, tmp_path_factory):
    """The sweep, and the file that it was kept in."""
    file = tmp_path_factory.mktemp("sweep") / "below" / "sweep.json"
    return sweep(lab, plan, saes, file, acts), file


def test_a_cells_numbers_by_hand(lab, plan, saes, acts, made):
    whole, _ = made
    bench = Bench(lab, plan, saes, acts)
    g = bench.ground(CONCEPTS[0])
    t, others, found = bench.tools(g), bench.others(CONCEPTS[0]), whole.found[0]
    assert torch.equal(others.words, bench.ground(CONCEPTS[1]).score.words)  # the only other concept's
    (base, _), theirs = answers(lab, g.score), answers(lab, others)[0]
    with ablate(lab, saes["wide"], t.by_answer[:4]):
        now, p = answers(lab, g.score)
        rest, harm = answers(lab, others)[0], damage(lab, g)
    cell = found.cell(BY_ANSWER, "k=4")
    assert [cell.remains, cell.p, cell.others, cell.damage] == pytest.approx(
        [float(now.mean() / base.mean()), float(p.mean()), float(rest.mean() / theirs.mean()), harm], rel=1e-4)
    assert found.advantage == pytest.approx(float(base.mean()), rel=1e-5) and cell.remains < 1
    assert found.dictionaries["wide"][1] == pytest.approx(cell.remains, rel=1e-5)
    assert found.dictionaries["narrow"][1] != pytest.approx(cell.remains, rel=1e-3)


def test_everything_of_the_plan_was_tried(plan, saes, made):
    whole, _ = made
    names = [(c.way, c.setting) for c in whole.found[0].cells]
    put = [(f"put in: {name}", setting) for name, setting in additions(plan)]
    assert names == [*ways(plan), (BY_ANSWER, "k=4, only at the place"), *put] and len(set(names)) == len(names)
    assert {(DIFF, "1"), (BY_ANSWER, "k=4, resample"), ("put in: " + RANDOM, "1")} <= {*names}
    assert [f.concept for f in whole.found] == [*CONCEPTS]
    for found in whole.found:
        assert all((cell.damage is None) == (":" in cell.way or "only" in cell.setting) for cell in found.cells)
        assert [len(draws) for draws in found.nulls.values()] == [3, 3, 3]
        assert {name: len(shares) for name, shares in found.dictionaries.items()} == dict.fromkeys(saes, 2)
    assert whole.column(DIFF, "1", "p").tolist() == [f.cell(DIFF, "1").p for f in whole.found]
    name = "shuffled decoder"
    assert whole.null(name) == pytest.approx([np.mean([f.nulls[name][i] for f in whole.found]) for i in range(3)])
    with pytest.raises(CourseError, match="way='DiffMean', setting='9' was not tried; tried: DiffMean 1, "):
        whole.found[0].cell(DIFF, "9")


def test_what_is_kept_is_read_back(made, tmp_path):
    whole, file = made
    again = load(file)
    assert replace(again, found=()) == replace(whole, found=()) and len(again.found) == 2
    for a, b in zip(again.found, whole.found, strict=True):
        assert a.concept == b.concept and a.advantage == pytest.approx(b.advantage, rel=1e-4)
        for one, other in zip(a.cells, b.cells, strict=True):
            assert (one.way, one.setting) == (other.way, other.setting)
            assert [*asdict(one).values()][2:] == [
                None if value is None else pytest.approx(value, rel=1e-4) for value in [*asdict(other).values()][2:]]
        assert {n: [*v] for n, v in a.nulls.items()} == {n: pytest.approx(v, rel=1e-4) for n, v in b.nulls.items()}
        assert all(a.dictionaries[n] == pytest.approx(v, rel=1e-4) for n, v in b.dictionaries.items())
    save(again, tmp_path / "again.json")
    assert load(tmp_path / "again.json") == again
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes() and len(list(file.parent.iterdir())) == 1


def test_a_sweep_that_was_cut_off_goes_on(lab, plan, saes, acts, made, tmp_path, monkeypatch):
    whole, file, tried = made[0], tmp_path / "cut.json", []
    try_all = Bench.try_all

    def stop_at_the_second(self, concept, *rest):
        if tried:
            raise KeyboardInterrupt
        tried.append(concept)
        return try_all(self, concept, *rest)

    monkeypatch.setattr(Bench, "try_all", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        sweep(lab, plan, saes, file, acts)
    assert [f.concept for f in load(file).found] == [CONCEPTS[0]] == tried
    altered = json.loads(file.read_text())
    altered["found"][0]["advantage"] = 77.0  # so that one sees where it comes from
    file.write_text(json.dumps(altered))
    monkeypatch.setattr(Bench, "try_all", lambda self, concept, *rest: tried.append(concept) or made[0].found[1])
    found = sweep(lab, plan, saes, file, acts)
    assert tried == [*CONCEPTS] and found.found[0].advantage == 77.0 and found.found[1] == whole.found[1]
    assert [f.concept for f in load(file).found] == [*CONCEPTS]
    monkeypatch.setattr(room, "Bench", lambda *a: pytest.fail("nothing is left to try"))
    assert sweep(lab, plan, saes, file).found == load(file).found


def test_a_file_of_something_else_is_refused(lab, plan, saes, made):
    narrow, (whole, file) = saes["narrow"], made
    for other, given in [(replace(plan, seed=1), saes), (replace(plan, n_null=2), saes),
                         (replace(plan, concepts=CONCEPTS[::-1]), saes), (plan, {"wide": narrow, "narrow": narrow}),
                         (plan, {"wide": saes["wide"]}), (plan, dict(reversed(saes.items())))]:
        with pytest.raises(CourseError, match="sweep.json' holds the sweep of another model, plan or SAE"):
            sweep(lab, other, given, file)
    with pytest.raises(CourseError, match="holds the sweep of another model"):
        sweep(random_twin(lab), plan, saes, file)
    assert [f.concept for f in load(file).found] == [f.concept for f in whole.found]


def test_what_is_no_sweep_gets_a_sentence(made, tmp_path):
    content, file = made[1].read_text(encoding="utf-8"), tmp_path / "bad.json"
    lacking = json.loads(content)
    del lacking["weights"]
    for text in (content[:-100], content[: len(content) // 2], "", "[]", "{}", json.dumps(lacking), '{"plan": 3}'):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(CourseError, match="bad.json' is no sweep that can be read .*; make it anew"):
            load(file)
    with pytest.raises(CourseError, match="nothing.json' is no sweep"):
        load(tmp_path / "nothing.json")


def test_a_plan_needs_two_concepts_and_an_sae(lab, plan, saes):
    for concepts, given in ((CONCEPTS[:1], saes), (CONCEPTS[:1] * 2, saes), (CONCEPTS, {})):
        with pytest.raises(CourseError, match="give two or more concepts, each once"):
            sweep(lab, replace(plan, concepts=concepts), given)


def test_a_recheck_finds_what_is_kept(lab, saes, acts, made):
    whole = load(made[1])
    found = recheck(lab, whole, saes, share=1.0, acts=acts)
    numbers = sum(4 if cell.damage is not None else 2 for cell in whole.found[0].cells) + 1 + 9 + 4
    assert sorted(found.concepts) == sorted(CONCEPTS) and found.n == 2 * numbers
    assert found.off < 1e-3
    part = recheck(lab, whole, {"wide": saes["wide"]}, share=0.5, seed=3, acts=acts)
    assert len(part.concepts) == 1 and part.n < numbers and part.off < 1e-3


def altered(whole, change):
    """Change each concept in a copy of what was kept."""
    found = []
    for f in whole.found:
        content = {"concept": f.concept, "advantage": f.advantage, "cells": [*f.cells],
                   "nulls": {n: [*v] for n, v in f.nulls.items()},
                   "dictionaries": {n: [*v] for n, v in f.dictionaries.items()}}
        change(content)
        content["cells"] = tuple(content["cells"])
        for part in ("nulls", "dictionaries"):
            content[part] = {name: tuple(values) for name, values in content[part].items()}
        found.append(replace(f, **content))
    return replace(whole, found=tuple(found))


@pytest.mark.parametrize("change", [
    lambda f: f.update(advantage=f["advantage"] + 0.1),
    lambda f: f["cells"].__setitem__(2, replace(f["cells"][2], remains=f["cells"][2].remains + 0.1)),
    lambda f: f["cells"].__setitem__(0, replace(f["cells"][0], damage=float("nan"))),
    lambda f: f["cells"].__setitem__(-1, replace(f["cells"][-1], p=f["cells"][-1].p - 0.1)),
    lambda f: f["nulls"]["shuffled decoder"].__setitem__(2, 0.1),
    lambda f: f["nulls"]["shuffled decoder"].__setitem__(2, float("nan")),
    lambda f: f["dictionaries"]["narrow"].__setitem__(0, 0.1),
])
def test_a_recheck_notices_a_number_that_was_altered(lab, saes, made, monkeypatch, change):
    whole = made[0]
    fresh = {f.concept: f for f in whole.found}  # what trying again would find

    class Again:
        def __init__(self, *_):
            pass

        def try_all(self, concept, *_):
            return fresh[concept]

    monkeypatch.setattr(room, "Bench", Again)
    assert recheck(lab, whole, saes, share=1.0).off == 0
    assert recheck(lab, altered(whole, change), saes, share=0.5).off > 0.05


def test_a_recheck_with_other_saes_is_refused(lab, saes, made):
    whole = made[0]
    for given, name in (({"wide": saes["narrow"]}, "wide"), ({"third": saes["wide"]}, "third"),
                        ({"narrow": saes["narrow"]}, "narrow")):
        with pytest.raises(CourseError, match=rf"saes\['{name}'\] is not the SAE that the sweep used.*'wide' first"):
            recheck(lab, whole, given)


def test_a_mark_tells_saes_apart_and_not_their_last_digits(lab, saes):
    assert mark(saes["wide"]) == mark(ready_sae(lab)) != mark(saes["narrow"])
    other = ready_sae(lab)
    with torch.no_grad():
        other.W_dec[3, 5] += 0.01
    assert mark(other) != mark(saes["wide"])


def test_the_kept_sweep_goes_by_weights_alone(lab, made, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "DATA", tmp_path)
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(paths, "expected_sums", dict)
    assert kept_sweep(lab) is None
    (tmp_path / "results").mkdir()
    whole = load(made[1])
    save(replace(whole, weights="0" * 64), tmp_path / "results" / f"causality-{lab.name}.json")
    assert kept_sweep(lab) is None
    save(replace(whole, model="another"), tmp_path / "results" / "causality-zzz.json")
    assert kept_sweep(lab) == replace(whole, model="another") and kept_sweep(random_twin(lab)) is None


def test_the_shipped_sweep_is_whole_and_of_the_shipped_saes(lab):
    whole = kept_sweep(lab)
    assert whole is not None and whole.weights == lab.fingerprint and kept_sweep(random_twin(lab)) is None
    assert tuple(f.concept for f in whole.found) == whole.plan.concepts and len(whole.found) >= 20
    assert next(iter(whole.saes.values())) == mark(ready_sae(lab))
    assert all({(c.way, c.setting) for c in f.cells} >= {*ways(whole.plan)} for f in whole.found)
    assert all(len(draws) == whole.plan.n_null for f in whole.found for draws in f.nulls.values())


def test_the_picture_in_the_readme_shows_the_shipped_sweep(lab, tmp_path, capsys):
    assert cli.main(["causality", "--picture", str(tmp_path / "new" / "picture.png")]) == 0
    drawn, kept_one = (Image.open(file).info["Description"] for file in (
        tmp_path / "new" / "picture.png", paths.DATA.parent / "docs" / "still_there.png"))
    assert drawn == kept_one and drawn in capsys.readouterr().out and "chance" in drawn
    found = kept_sweep(lab)
    readme = (paths.DATA.parent / "README.md").read_text(encoding="utf-8")
    said = readme[readme.index("![Take a concept") : readme.index("](docs/still_there.png)")]
    shares = [found.column(way, k).mean() for way, k in ((BY_WORD, "k=1"), (BY_ANSWER, "k=4"), (BY_ANSWER, "k=64"))]
    assert [int(x) for x in re.findall(r"(\d+) %", said)] == [round(100 * share) for share in shares]


def test_nothing_is_drawn_of_a_model_that_nothing_is_kept_for(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(kept, "DATA", tmp_path)
    assert cli.main(["causality", "--picture", str(tmp_path / "p.png")]) == 2
    assert "nothing is kept for organism" in capsys.readouterr().err and not (tmp_path / "p.png").exists()


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_makes_a_table_and_goes_on(lab, tmp_path, capsys):
    command = ["causality", "--concepts", "2", "--places", "4", "--nulls", "2", "--seeds", "1", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    whole = load(tmp_path / "causality-organism.json")
    assert len(whole.found) == 2 and whole.plan.n_null == 2
    assert [*whole.saes] == ["seed 0", "width 4,096", "frozen decoder"]
    assert whole.saes["frozen decoder"] == mark(ready_sae(lab, freeze_decoder=True))
    text = (tmp_path / "causality-organism.md").read_text(encoding="utf-8")
    assert text.strip() in said
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert len(rows) == 2 + len(whole.found[0].cells) + 3 + 2 * len(whole.saes) and {len(row) for row in rows} == {6}
    (diff,) = (row for row in rows if row[:2] == [DIFF, "1"])
    assert float(diff[2].split()[0]) == pytest.approx(whole.column(DIFF, "1").mean(), abs=0.006)
    assert float(diff[5]) == pytest.approx(whole.column(DIFF, "1", "damage").mean(), abs=6e-4)
    (null,) = (row for row in rows if row[0] == "null: shuffled decoder")
    assert float(null[2]) == pytest.approx(whole.null("shuffled decoder").mean(), abs=0.006)
    shutil.copy(tmp_path / "causality-organism.json", tmp_path / "before.json")
    assert cli.main(command) == 0
    assert (tmp_path / "before.json").read_bytes() == (tmp_path / "causality-organism.json").read_bytes()


def test_no_seed_is_one_sentence(capsys):
    assert cli.main(["causality", "--seeds", "0"]) == 2
    assert "--seeds=0 must be at least 1." in capsys.readouterr().err
