"""The measurements' own arithmetic: turns, ratios, slopes, a side that fails. What they measure needs the peers."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_sides_take_turns_and_the_first_turn_goes_round(load):
    order = []
    found = load("harness").alternate(3, a=lambda: order.append("a") or 1, b=lambda: order.append("b") or 2)
    assert order == ["a", "b", "b", "a", "a", "b"] and found == {"a": [1, 1, 1], "b": [2, 2, 2]}


def test_a_ratio_above_one_is_ours_being_faster(load, capsys):
    compare = load("harness").compare
    seconds = compare("x", [1, 2, 9], [4, 4, 9])  # the median forgives one bad round
    rates = compare("x", [40.0, 40.0, 10.0], [10.0, 20.0, 10.0], "act/s")
    assert (seconds["ratio"], seconds["range"]) == (2, [1, 4]) and (rates["ratio"], rates["range"]) == (4, [1, 4])
    assert seconds["n"] == 3 and "2.00x" in capsys.readouterr().out


def test_the_slope_of_a_power_is_its_exponent(load):
    load("harness")
    assert load("growth").slope([(n, 3 * n**0.7) for n in (1, 2, 4, 16)]) == pytest.approx(0.7)


def test_a_side_answers_prints_nothing_and_says_what_failed(load, monkeypatch, tmp_path):
    harness = load("harness")
    (tmp_path / "sides").mkdir()
    shutil.copy(HERE / "sides" / "protocol.py", tmp_path / "sides")
    (tmp_path / "sides" / "ours.py").write_text(
        "from protocol import serve\nserve(double=lambda x: print('noise') or 2 * x, fail=lambda: 1 / 0)")
    monkeypatch.setattr(harness, "HERE", tmp_path)
    side = harness.Side("ours", 1)
    assert side("double", x=21) == 42
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        side("fail")
    assert side("double", x=1) == 2
    side.close()
    assert side.log.read_text().count("noise") == 2


def test_the_table_is_made_from_the_files_alone(load, tmp_path, monkeypatch, capsys):
    harness = load("harness")
    report = load("report")
    harness.BUILD.mkdir()
    judged = {"explained_variance": 0.8, "l0": 16.0}
    row = harness.compare("topk", [30.0], [10.0], "act/s", kind="topk", d=8, width=64, step="float32",
                          peer_name="sae-lens", quality={"ours": judged, "peer": judged})
    harness.write("training", [row], {}, 2, roofline={"training, topk, bfloat16": 0.5})
    harness.write("harvest", [harness.compare("harvest", [2.0], [8.0], quality={"relative error": 0.01})], {}, 2)
    monkeypatch.setattr(sys, "argv", ["report.py"])
    report.main()
    text = (harness.BUILD / "table.md").read_text()
    assert "| harvest | 2 s | 8 s | **4.0×** (4.0–4.0) | relative error 0.01 |" in text
    assert "| topk, d = 8, width 64, float32 | 30 | **3.0×** (3.0–3.0) |  |  |  | 0.800 / 0.800 |" in text
    assert "topk, bfloat16 50%" in text
    assert json.loads((harness.BUILD / "harvest.json").read_text())["machine"]["threads"] == 2


def test_scores_are_the_same_on_both_sides(load, monkeypatch):
    load("harness")
    scores = load("scores")
    monkeypatch.setattr(scores, "TOKENS", 2000)
    monkeypatch.setattr(scores, "FULL", (3, 10))
    for kind in ("dense", "sparse"):
        rows, found = scores.measure(kind, SimpleNamespace(units=2, concepts=10, rounds=1, threads=1))
        assert rows[0]["quality"]["of F1"] < 1e-6 and len(found["full"]) == 1
        assert rows[1]["peer"] == pytest.approx(rows[0]["peer"] * 30 / 20)
