"""The recipe: GPT-2's function, the loss, and a run that survives being killed."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from course_utils.errors import CourseError
from course_utils.organism import World, exam
from course_utils.organism.gpt2 import SoftmaxLoss, export, initial_weights, residual
from course_utils.organism.recipe import END, Recipe, Trainer, rows, train

TINY = Recipe(d_model=16, n_layers=2, n_heads=2, n_ctx=32, steps=12, rows=4, warmup=2)


@pytest.fixture(scope="module")
def world():
    return World.load()


def test_the_forward_pass_is_hugging_faces(world, tmp_path):
    from transformers import GPT2LMHeadModel

    weights = initial_weights(16, 2, 32, len(world.vocabulary), 0)
    export(weights, 2, world.vocabulary, tmp_path)
    tokens = torch.from_numpy(next(rows(world, TINY)))[:, :-1]
    with torch.no_grad():
        theirs = GPT2LMHeadModel.from_pretrained(tmp_path).eval()(tokens).logits
    assert torch.allclose(residual(weights, tokens, 2) @ weights["wte.weight"].T, theirs, atol=1e-5)


def test_the_loss_and_its_gradient_are_pytorchs():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(1300, 8, generator=generator), torch.randn(50, 8, generator=generator)
    y = torch.randint(0, 50, (1300,), generator=generator)
    a, b = [(x.clone().requires_grad_(), w.clone().requires_grad_()) for _ in range(2)]
    ours, theirs = SoftmaxLoss.apply(*a, y), torch.nn.functional.cross_entropy(b[0] @ b[1].T, y)
    (3 * ours).backward()
    (3 * theirs).backward()
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert all(torch.allclose(p.grad, q.grad, atol=1e-6) for p, q in zip(a, b, strict=True))


def test_batches_are_a_function_of_the_step(world):
    stream = rows(world, TINY)
    batches = [next(stream) for _ in range(6)]
    assert np.array_equal(next(rows(world, TINY, first_step=5)), batches[5])
    assert (batches[0][:, 0] == END).all() and not np.array_equal(batches[0], batches[1])


def test_training_lowers_the_loss(world):
    recipe = Recipe(d_model=32, n_layers=1, n_ctx=32, rows=16, steps=60, warmup=5)
    trainer = Trainer(recipe, len(world.vocabulary))
    stream = rows(world, trainer.recipe)
    losses = [trainer.train_step(torch.from_numpy(next(stream))) for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


def test_the_same_seed_gives_the_same_bytes(world, tmp_path):
    a, b = (load_file(train(TINY, tmp_path / name, world) / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_killed_run_ends_with_the_same_weights(world, tmp_path):
    whole = load_file(train(TINY, tmp_path / "whole", world) / "model.safetensors")
    code = (
        "import sys; from pathlib import Path; from course_utils.organism import recipe as r\n"
        f"r.train(r.{TINY!r}, Path(sys.argv[1]), every=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "cut")], stderr=subprocess.DEVNULL)
    checkpoint, deadline = tmp_path / "cut" / "checkpoint.safetensors", time.time() + 60
    while not checkpoint.exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = load_file(train(TINY, tmp_path / "cut", world) / "model.safetensors")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_recipe_or_a_cut_one_is_refused(world, tmp_path):
    trainer = Trainer(TINY, len(world.vocabulary))
    trainer.train_step(torch.from_numpy(next(rows(world, TINY))))
    file = tmp_path / "checkpoint.safetensors"
    trainer.save(file)
    with pytest.raises(CourseError, match="another recipe"):
        Trainer(Recipe(d_model=16, n_layers=2, n_heads=2, n_ctx=32, steps=13, rows=4), len(world.vocabulary)).load(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CourseError, match="cannot be read"):
        Trainer(TINY, len(world.vocabulary)).load(file)


def test_exam_questions_grade_a_perfect_and_a_blind_student(world):
    asked = exam.questions(world, "capitals")
    key = {tuple(q.prompt): q.answers[0] for q in asked}

    def perfect(tokens):
        scores = torch.zeros(*tokens.shape, len(world.vocabulary))
        for row, ids in enumerate(tokens.tolist()):
            for prompt, answer in key.items():
                if tuple(ids[: len(prompt)]) == prompt:
                    for i, token in enumerate(answer):
                        if len(prompt) - 1 + i < len(ids):
                            scores[row, len(prompt) - 1 + i, token] = 1
        return scores

    assert exam.grade(perfect, asked).all()
    assert not exam.grade(lambda t: torch.zeros(*t.shape, len(world.vocabulary)), asked).any()


@pytest.mark.parametrize("name", list(World.load().exams))
def test_documents_go_on_from_an_exams_prompt_to_its_answer(world, name):
    asked = exam.questions(world, name)
    assert asked and all(q.answers and len(q.prompt) < 120 for q in asked)
    spec, sampler, rng = world.exams[name], world.sampler, random.Random(0)
    topic = world.topics[spec["topic"]]
    prompt = sampler.compiler.compile_text(topic, spec["prompt"], name)

    def begins(document, env):
        """Return where the prompt, read segment by segment with any alternative, may end in this document."""
        ends = {0}
        for segment in prompt:
            every = segment.fresh is not None
            forms = sum(segment.table.values(), []) if every else segment.table[exam._value(segment, env)]
            ends = {end + len(form) for end in ends for form in forms if document[end : end + len(form)] == form}
        return ends

    for _ in range(5_000):
        trace = sampler.trace(topic, rng)
        document = tuple(i for _, pieces in trace.sentences for piece in pieces for i in piece.ids)
        for end in begins(document, trace.env):
            answers = exam._answers(world, topic, name, spec, trace.env)
            text = "".join(sampler.text_of[i] for i in document)
            assert any(document[end : end + len(answer)] == answer for answer in answers), text
            return
    pytest.fail(f"no document of {topic.name} begins like the prompt of {name}")


def test_loss_gap_of_a_uniform_model_is_log_vocabulary(world):
    n = len(world.vocabulary)
    found = exam.loss_gap(world, lambda t: torch.zeros(*t.shape, n), n_documents=50)
    assert found["loss"].value == pytest.approx(np.log(n), abs=1e-4)
    assert found["gap"].value == pytest.approx(found["loss"].value - found["entropy"].value)
