"""Frontiers: families at given L0s, kept as they come, and the command that makes them."""

import json

import pytest

from course_utils import cli, evaluate
from course_utils.dictionaries import frontiers, train_at_l0, train_sae
from course_utils.dictionaries.frontiers import Frontier, Plan, Point, family_frontier, kept_frontier, load, save
from course_utils.errors import CourseError
from course_utils.evidence import Estimate
from course_utils.lab import open_lab

FAST = {"width": 48, "n_tokens": 2000, "n_samples": 6400, "batch_size": 128, "n_judged": 1000}


@pytest.fixture(scope="module")
def plan(small_lab):
    return Plan(small_lab.middle_hook, l0s=(4, 8), seeds=2, families=("L1", "TopK"), **FAST)


@pytest.fixture(scope="module")
def made(small_lab, plan, tmp_path_factory):
    file = tmp_path_factory.mktemp("frontier") / "found.json"
    return family_frontier(small_lab, plan, file), file


def test_every_point_is_there_and_is_what_evaluate_says(made, small_lab, plan):
    found, _ = made
    assert [(p.family, p.target, p.seed) for p in found.points] == [
        (f, t, s) for f in ("L1", "TopK") for t in (4, 8) for s in (0, 1)]
    (point,) = (p for p in found.points if (p.family, p.target, p.seed) == ("TopK", 8, 1))
    acts = frontiers.harvest(small_lab, plan.hook, plan.n_tokens, labels=False)
    e = evaluate(small_lab, train_sae(acts, 48, 8, "topk", n_samples=6400, batch_size=128, seed=1).sae, 1000)
    assert point.measures["explained_variance"] == e.explained_variance and point.lever == "k"
    assert point.measures["cost"].value == pytest.approx(e.ce_spliced.value - e.ce_clean.value, abs=1e-6)


def test_more_latents_explain_more_and_seeds_share_a_lever(made):
    found, _ = made
    kept = found.mean("explained_variance")
    assert kept["TopK", 8].value > kept["TopK", 4].value
    levers = {(p.family, p.target): set() for p in found.points}
    for p in found.points:
        levers[p.family, p.target].add(p.value)
    assert all(len(values) == 1 for values in levers.values())


def test_a_mean_is_over_seeds_with_their_range():
    costs = [Estimate(v, v - 1.0, v + 1.0, 9) for v in (1.0, 2.0, 6.0)]
    points = tuple(Point("L1", 8, seed, "l1", 1.0, {"cost": cost}) for seed, cost in enumerate(costs))
    assert Frontier("m", "w", Plan("h"), points).mean("cost") == {("L1", 8): Estimate(3.0, 1.0, 6.0, 3)}


def test_what_was_written_is_read_back(made):
    found, file = made
    again = load(file)
    assert (again.model, again.weights, again.plan) == (found.model, found.weights, found.plan)
    for p, q in zip(found.points, again.points, strict=True):
        assert vars(p) | {"measures": 0} == vars(q) | {"measures": 0}
        for name in frontiers.MEASURES:
            assert q.measures[name] == pytest.approx(p.measures[name], rel=1e-4, nan_ok=True)


def test_what_was_cut_off_goes_on(made, small_lab, plan, tmp_path, monkeypatch):
    found, file = made
    cut = Frontier(found.model, found.weights, plan, found.points[:5])
    save(cut, tmp_path / "half.json")
    trained = []

    def count(*args, **settings):
        trained.append(settings)
        return train_at_l0(*args, **settings)

    monkeypatch.setattr(frontiers, "train_at_l0", count)
    whole = family_frontier(small_lab, plan, tmp_path / "half.json")
    assert len(trained) == 1  # TopK at 8, the first seed; the others go by the levers found
    assert [p.measures["l0"].value for p in whole.points] == pytest.approx(
        [p.measures["l0"].value for p in found.points], rel=1e-4)
    assert json.loads((tmp_path / "half.json").read_text())["points"] == json.loads(file.read_text())["points"]


def test_a_file_of_something_else_is_left_alone(made, small_lab, plan, tmp_path):
    found, file = made
    other = Plan(plan.hook, l0s=(4,), **FAST)
    before = file.read_bytes()
    with pytest.raises(CourseError, match="another model or plan"):
        family_frontier(small_lab, other, file)
    assert file.read_bytes() == before
    (tmp_path / "cut.json").write_bytes(before[:-40])
    with pytest.raises(CourseError, match="no frontier that can be read"):
        load(tmp_path / "cut.json")


def test_the_shipped_one_belongs_to_the_organism(small_lab):
    organism = open_lab("organism", device="cpu", text="world", quiet=True)
    found = kept_frontier(organism)
    assert found.plan.hook == organism.middle_hook and set(found.plan.families) == set(frontiers.FAMILIES)
    assert len(found.points) == len(found.plan.l0s) * len(found.plan.families) * found.plan.seeds
    for (_, target), l0 in found.mean("l0").items():
        assert l0.value == pytest.approx(target, rel=0.1)
    assert kept_frontier(small_lab) is None


def test_the_command_writes_json_a_table_and_a_figure(tiny_gpt2, tmp_path, monkeypatch, capsys):
    command = ["saes", "frontier", "--model", str(tiny_gpt2.directory), "--text", str(tiny_gpt2.text), "--l0", "4", "8",
               "--seeds", "1", "--width", "48", "--samples", "4096", "--families", "TopK", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "| TopK | " in said and "cost, nats a token" in said
    name = f"frontier-{tiny_gpt2.directory.name}"
    assert {p.name for p in tmp_path.iterdir()} == {f"{name}.json", f"{name}.md", f"{name}.png"}
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setattr(frontiers, "train_at_l0", lambda *a, **k: pytest.fail("trained again"))
    assert cli.main(command) == 0
    assert cli.main([*command, "--width", "40"]) == 2
    assert cli.main([*command, "--families", "TopKay"]) == 2
    assert "--families='TopKay' is not known; nearest: 'TopK'" in capsys.readouterr().err
