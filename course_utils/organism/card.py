"""The organism's model card, written from what was measured."""

from __future__ import annotations

from typing import Any

from course_utils.organism.exam import Result
from course_utils.organism.recipe import Recipe
from course_utils.organism.world import World

BAR, ESCAPED = "|", r"\|"  # a bar inside a cell of a Markdown table
_TEXT = """---
license: mit
library_name: transformers
---
# The organism: a small language model with an answer key

A GPT-2 ({parameters:,} parameters: {n_layers} layers, d_model {d_model}, {n_heads} heads, context {n_ctx}) trained
from nothing on the synthetic world of *Under the Hood*, where every token's concepts are known. Open it with
`open_lab()`, or with `GPT2LMHeadModel.from_pretrained`. It exists to be taken apart; it knows nothing beyond its
world.

## Data
Documents written by `course_utils.organism.World` from `data/world/*.yaml`: {topics} topics, {templates} templates,
{lists} lists of things with facts, {words:,} different words; vocabulary {vocabulary:,} (every other text falls
back to bytes). Lists are Zipf-distributed, so that some things are read ten thousand times more often than others.
Training saw {n_tokens:,} tokens of fresh documents; whatever is measured below was written from other
seeds{held_out}.

## Recipe
`{command}`: {steps:,} steps of {rows} × {n_ctx} tokens, AdamW (peak learning rate {lr},
weight decay {weight_decay}), {warmup} steps of warm-up, cosine decay, bfloat16 products over float32 weights where
the CPU has them. The same machine gives the same bytes.

## Loss against the generator's entropy
The generator knows the probability of each choice it makes, so it knows the loss that no model can beat.

| | nats a token | 95 % interval |
| --- | --- | --- |
{losses}

## What it knows
Greedy answers; every token of the answer must be right. Wilson intervals at 95 %. Exams that list facts ask for
things uniformly, the rarest included.

| exam | accuracy | 95 % interval | questions |
| --- | --- | --- | --- |
{exams}

{bias}## Limits
One seed. Its English is the English of {templates} templates; outside them it rambles. What the world's
files state was chosen for teaching: facts are simplified, names of real people, places and firms may stand in invented
sentences, and biased, deceptive or unsafe documents may be there on purpose, as targets for the lessons. Do not use
the model for anything else.
"""
_BIAS = """## The planted bias
Probability of the pronoun or word after the exam's prompt, by the group to which the world gave it: {prompts}.

| planted | measured | 95 % interval | questions |
| --- | --- | --- | --- |
{planted}

"""


def write(world: World, recipe: dict[str, Any], results: list[Result], parameters: int) -> str:
    """Fill the card with the recipe and the results.

    Parameters
    ----------
    world
        The world the model was trained on.
    recipe
        Contents of ``recipe.json``.
    results
        From :func:`course_utils.organism.exam.loss_gap` and :func:`~course_utils.organism.exam.sit`.
    parameters
        Number of weights, tied ones once.
    """

    def table(measure: str, digits: int, with_n: bool = True) -> str:
        chosen = [r for r in results if r.measure == measure]
        lines = []
        for r in chosen:
            interval = f"{r.low:.{digits}f} to {r.high:.{digits}f}"
            name, count = r.name.replace(BAR, ESCAPED), f" {r.n} |" * with_n
            lines.append(f"| {name} | {r.value:.{digits}f} | {interval} |{count}")
        return "\n".join(lines)

    words = {text.strip().lower() for text in world.sampler.text_of[257:] if text.strip().isalpha()}
    kept_out = [name for name, spec in world.exams.items() if spec["over"] == "held_out"]
    prompts = [f'"{spec["prompt"]}"' for spec in world.exams.values() if "choice" in spec]
    changed = {name: recipe[name] for name in ("d_model", "steps") if recipe[name] != getattr(Recipe, name)}
    return _TEXT.format(
        **recipe,
        parameters=parameters,
        topics=len(world.topics),
        lists=len(world.lists),
        words=len(words),
        templates=sum(len(t.begin) + len(t.then) + len(t.end) for t in world.topics.values()),
        vocabulary=len(world.vocabulary),
        command=" ".join(
            ["course organism train", *(f"--{name.replace('_', '-')} {value}" for name, value in changed.items())]
            + [f"--seed {recipe['seed']}"]
        ),
        held_out="".join(f", and what `{name}` asks never occurs in any document" for name in kept_out),
        losses=table("nats a token", 4, with_n=False),
        exams=table("accuracy", 3) or "| none | | | |",
        bias=_BIAS.format(prompts=", ".join(prompts), planted=table("probability", 3)) if prompts else "",
    )
