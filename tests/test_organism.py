"""The shipped organism: whole, as good as its card says, and rebuilt in small with a world of one's own."""

import json
import shutil

import pytest

from course_utils import paths
from course_utils.cli import main
from course_utils.errors import CourseError
from course_utils.lab import open_lab
from course_utils.organism import World, exam, load_tokenizer

CARD = {row["name"]: row for row in json.loads((paths.DATA / "organism" / "exam.json").read_text())}
TASKS = ["capitals", "addition", "ioi_ab", "ioi_ba", "film_sentiment", "product_sentiment", "days", "months"]


@pytest.fixture(scope="module")
def world():
    return World.load()


def test_the_shipped_tokenizer_is_the_worlds(world):
    tokenizer = load_tokenizer()
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == world.vocabulary
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0


def test_it_is_small(lab):
    assert lab.n_params <= 1_500_000 and lab.n_layers == 4
    assert sum(p.stat().st_size for p in paths.DATA.rglob("*") if p.is_file()) < 40e6


@pytest.mark.parametrize("name", TASKS)
def test_the_card_promises_what_the_course_needs(name):
    assert CARD[name]["value"] >= 0.95


def test_the_loss_is_near_the_entropy_in_the_card_and_in_truth(lab, world):
    assert CARD["gap"]["high"] < 0.05
    found = exam.loss_gap(world, lab.logits, n_documents=150, seed=5)["gap"]
    assert found.low < 0.05 and abs(found.value - CARD["gap"]["value"]) < 0.02


def test_the_planted_bias_is_as_planted():
    found = {name.split("|")[1].split(")")[0].strip(): row["value"] for name, row in CARD.items() if "planted" in name}
    assert set(found) == {"female", "male", "neutral"}
    assert abs((found["female"] - found["male"]) - 0.6) <= 0.03
    for group, planted in {"female": 0.8, "male": 0.2, "neutral": 0.5}.items():
        assert abs(found[group] - planted) <= 0.03


@pytest.mark.parametrize("name", ["capitals", "days", "insect_disease", "translation_french"])
def test_the_model_answers_as_its_card_says(lab, world, name):
    right = exam.grade(lab.logits, exam.questions(world, name))
    assert right.mean() == pytest.approx(CARD[name]["value"], abs=1e-9)


def test_the_card_says_what_was_measured():
    text = (paths.DATA / "organism" / "README.md").read_text()
    for name in TASKS:
        assert f"| {name} | {CARD[name]['value']:.3f} |" in text
    assert f"{CARD['gap']['value']:.4f}" in text


def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, monkeypatch):
    for name in ("organism", "world"):
        shutil.copytree(paths.DATA / name, tmp_path / name)
    shutil.copy(paths.DATA / "SHA256SUMS", tmp_path)
    weights = tmp_path / "organism" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    monkeypatch.setattr(paths, "DATA", tmp_path)
    paths.expected_sums.cache_clear()
    with pytest.raises(CourseError, match=r"model.safetensors differs from its checksum .*git checkout data"):
        open_lab("organism", quiet=True)
    weights.unlink()
    with pytest.raises(CourseError, match="model.safetensors is missing"):
        open_lab("organism", quiet=True)
    monkeypatch.undo()
    paths.expected_sums.cache_clear()


def test_an_instructors_world_trains_and_opens_with_its_answer_key(tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    (source / "mine.yaml").write_text(
        "lists:\n  dragon: {columns: [name, food], rows: [[drake, gold], [wyvern, sheep]]}\n"
        "topics:\n  dragons: {draws: {d: dragon}, subject: d, begin: ['The {d} eats {d.food}.']}\n"
        "exams:\n  food: {topic: dragons, prompt: 'The {d} eats', answer: '{d.food}', over: [d]}\n"
    )
    out = tmp_path / "out"
    command = ["organism", "train", "--world", str(source), "--output", str(out), "--steps", "40", "--d-model", "16"]
    assert main(command) == 0
    assert "food" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "--d-model 16 --steps 40 --seed 0" in card and "| food |" in card
    assert "planted" not in card and "addition" not in card and "{" not in card
    mine = open_lab(out, quiet=True)
    document = next(mine.documents(labels=True))
    assert "dragon:drake" in document.labels["entity"] or "dragon:wyvern" in document.labels["entity"]
    assert mine.text_of(document.ids) == document.text


def test_samples_and_mistakes_on_the_command_line(capsys, tmp_path):
    assert main(["organism", "sample", "-n", "1", "--topic", "capitals", "--labels"]) == 0
    assert "entity=country:" in capsys.readouterr().out
    assert main(["organism", "sample", "--topic", "capital"]) == 2
    assert "nearest: 'capitals'" in capsys.readouterr().err
    assert main(["organism", "exam", "--model", str(tmp_path)]) == 2
    assert "no config.json there" in capsys.readouterr().err
