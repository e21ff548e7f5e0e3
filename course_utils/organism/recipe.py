"""How the organism was made: a GPT-2 trained on the world's documents, from nothing, in minutes on a CPU.

1. Rows of 128 tokens: the end-of-text mark, a document, the mark, a document, ... cut at the row's end.
2. The forward pass is GPT-2's (tied embeddings, pre-LayerNorm, ``gelu_new``), written with two batched products per
   attention: the same function as Hugging Face's, asserted in the tests.
3. Weights are kept in float32 and multiplied in bfloat16 where the CPU does that natively.
4. Skills before facts: the first sixth of the steps is written about the topics marked ``early`` only (who gave what to
   whom, sums, days, verdicts), because a small model learns to look back there within minutes, and among all topics
   at once hardly at all (measured: indirect objects .95 after 8 M tokens, against .03 after 6 M).
5. AdamW, linear warm-up, cosine decay to zero; every batch is a pure function of the seed and the step, and a
   checkpoint holds weights and moments, so a run that was killed ends with the same weights as one that was not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.organism.gpt2 import SoftmaxLoss, export, fast_dtype, initial_weights, residual
from course_utils.organism.world import World

ROWS_PER_CHUNK = 2_048  # rows written from one seed; a resumed run rewrites at most one chunk
THREADS = 2  # the order of sums, and with it the last bits, depends on their number
END = 0  # id of the end-of-text mark


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the organism's weights.

    Attributes
    ----------
    d_model, n_layers, n_heads, n_ctx
        Shape of the GPT-2; ``d_mlp`` is four times ``d_model``.
    steps, rows
        Training steps, and rows of ``n_ctx`` tokens in each.
    lr, weight_decay, warmup
        AdamW's peak learning rate, its decay on matrices, and the steps of linear warm-up.
    seed
        Seed of the weights and of the documents.
    """

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    n_ctx: int = 128
    steps: int = 8_000
    rows: int = 32
    lr: float = 3e-3
    weight_decay: float = 0.05
    warmup: int = 200
    seed: int = 0

    @property
    def early_rows(self) -> int:
        """Rows written about early topics only."""
        return self.steps * self.rows // 6

    @property
    def n_tokens(self) -> int:
        """Tokens seen in training."""
        return self.steps * self.rows * self.n_ctx


def rows(world: World, recipe: Recipe, first_step: int = 0) -> Iterator[Int[np.ndarray, "rows n_ctx_1"]]:
    """Yield one batch of packed rows a step, from ``first_step`` on; the last column is only ever a target."""
    per_chunk = max(1, ROWS_PER_CHUNK // recipe.rows)
    for chunk in itertools.count(first_step // per_chunk):
        packed = _pack(world, recipe, chunk, per_chunk * recipe.rows)
        for i in range(first_step % per_chunk if chunk == first_step // per_chunk else 0, per_chunk):
            yield packed[i * recipe.rows : (i + 1) * recipe.rows]


def _pack(world: World, recipe: Recipe, chunk: int, n_rows: int) -> Int[np.ndarray, "rows n_ctx_1"]:
    early = [name for name, topic in world.topics.items() if topic.early] if chunk * n_rows < recipe.early_rows else []
    width, documents = recipe.n_ctx + 1, world.documents(seed=f"{recipe.seed}/{chunk}", topic=early or None)
    packed = np.empty((n_rows, width), dtype=np.int64)
    for row in packed:
        ids: list[int] = []
        while len(ids) < width:
            ids += [END, *next(documents).ids]
        row[:] = ids[:width]
    return packed


class Trainer:
    """The run's whole state: weights, AdamW's moments, the step; saved and loaded as one safetensors file."""

    def __init__(self, recipe: Recipe, n_vocab: int) -> None:
        self.recipe, self.step = recipe, 0
        self.weights = {
            k: w.requires_grad_()
            for k, w in initial_weights(recipe.d_model, recipe.n_layers, recipe.n_ctx, n_vocab, recipe.seed).items()
        }
        decayed = [w for w in self.weights.values() if w.ndim == 2]
        others = [w for w in self.weights.values() if w.ndim == 1]
        self.adam = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.dtype = fast_dtype()

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        r = self.recipe
        if self.step < r.warmup:
            return r.lr * (self.step + 1) / r.warmup
        return r.lr * 0.5 * (1 + math.cos(math.pi * (self.step - r.warmup) / max(1, r.steps - r.warmup)))

    def train_step(self, batch: Int[Tensor, "rows n_ctx_1"]) -> float:
        """Take one step; returns the loss in nats a token."""
        live = {k: w.detach().to(self.dtype).requires_grad_() for k, w in self.weights.items()}
        final = residual(live, batch[:, :-1], self.recipe.n_heads).flatten(0, 1)
        loss = SoftmaxLoss.apply(final, live["wte.weight"], batch[:, 1:].flatten())
        loss.backward()
        for name, weight in self.weights.items():
            weight.grad = live[name].grad.to(weight.dtype)
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate()
        self.adam.step()
        self.step += 1
        return loss.item()

    def save(self, file: Path) -> None:
        """Write weights, moments and step; the file is whole or absent, never cut short."""
        from safetensors.torch import save_file

        tensors = {f"weight/{k}": w.detach() for k, w in self.weights.items()}
        for k, w in self.weights.items():
            state = self.adam.state[w]
            tensors |= {f"m/{k}": state["exp_avg"], f"v/{k}": state["exp_avg_sq"]}
        part = file.with_suffix(".part")
        save_file(tensors, part, metadata={"step": str(self.step), "recipe": json.dumps(asdict(self.recipe))})
        os.replace(part, file)

    def load(self, file: Path) -> None:
        """Continue from a checkpoint.

        Raises
        ------
        CourseError
            If it is damaged, or was made by another recipe.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as saved:
                meta, tensors = saved.metadata(), {k: saved.get_tensor(k) for k in saved.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CourseError(f"checkpoint {file.name} cannot be read ({error}); delete it to start again.") from error
        if json.loads(meta["recipe"]) != asdict(self.recipe):
            raise CourseError(
                f"checkpoint {file.name} belongs to another recipe ({meta['recipe']}); "
                "delete it or choose another folder with --output."
            )
        if tensors["weight/wte.weight"].shape != self.weights["wte.weight"].shape:
            raise CourseError(f"checkpoint {file.name} is of another world; delete it, or choose another --output.")
        self.step = int(meta["step"])
        with torch.no_grad():
            for k, w in self.weights.items():
                w.copy_(tensors[f"weight/{k}"])
                self.adam.state[w] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": tensors[f"m/{k}"],
                    "exp_avg_sq": tensors[f"v/{k}"],
                }


def train(recipe: Recipe, folder: Path, world: World | None = None, every: int = 250) -> Path:
    """Train the organism (or go on with a run that was cut off) and write it as a Hugging Face directory.

    Parameters
    ----------
    recipe
        Shape, length and seed.
    folder
        Where model, tokenizer, log and checkpoint go.
    world
        What to write about; default the course's own.
    every
        Steps between checkpoints.

    Returns
    -------
    pathlib.Path
        ``folder``, with ``config.json``, ``model.safetensors``, ``tokenizer.json``, ``recipe.json``.
    """
    from tqdm.auto import tqdm

    world = World.load() if world is None else world
    folder.mkdir(parents=True, exist_ok=True)
    trainer, checkpoint = Trainer(recipe, len(world.vocabulary)), folder / "checkpoint.safetensors"
    if checkpoint.is_file():
        trainer.load(checkpoint)
    smooth = None
    bar = tqdm(total=recipe.n_tokens, unit="tok", unit_scale=True, desc="Training the organism")
    with bar, _threads(THREADS):
        bar.update(trainer.step * recipe.rows * recipe.n_ctx)
        for batch in itertools.islice(rows(world, recipe, trainer.step), recipe.steps - trainer.step):
            loss = trainer.train_step(torch.from_numpy(batch))
            smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
            bar.update(recipe.rows * recipe.n_ctx)
            if trainer.step % every == 0 or trainer.step == recipe.steps:
                bar.set_postfix(loss=f"{smooth:.4f}")
                trainer.save(checkpoint)
    export(trainer.weights, recipe.n_heads, world.vocabulary, folder)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe) | {"n_tokens": recipe.n_tokens}, indent=1) + "\n")
    checkpoint.unlink(missing_ok=True)
    return folder


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
