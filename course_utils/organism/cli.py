"""``course organism train · exam · sample · sums``: rebuild the organism, examine it, read its world."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import time
from pathlib import Path

from course_utils.errors import CourseError
from course_utils.organism.world import World
from course_utils.paths import DATA, build_dir, write_sums


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add ``organism`` and its verbs to the ``course`` command; each sets ``func(args) -> int``."""
    verbs = subparsers.add_parser("organism", help="rebuild or examine the embedded model").add_subparsers(
        dest="verb", required=True, metavar="train|exam|sample|sums"
    )
    parser = verbs.add_parser("train", help="train the organism from nothing (resumes a run that was cut off)")
    parser.add_argument("--output", type=Path, help="folder for the model (default: build/organism)")
    parser.add_argument("--world", type=Path, help="folder of YAML files to write about (default: data/world)")
    parser.add_argument("--d-model", type=int, help="width of the residual stream")
    parser.add_argument("--steps", type=int, help="training steps of 4,096 tokens")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and documents (default: 0)")
    parser.add_argument(
        "--install", action="store_true", help="also put the result into data/organism, with new checksums"
    )
    parser.set_defaults(func=_train)
    parser = verbs.add_parser("exam", help="ask a trained organism every exam question; writes exam.json and README.md")
    parser.add_argument("--model", type=Path, help="folder of the model (default: data/organism)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(func=_exam)
    parser = verbs.add_parser("sample", help="print documents of the world, with labels on request")
    parser.add_argument("-n", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--topic", help="only this topic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", action="store_true", help="one token a line with its labels")
    parser.add_argument("--world", type=Path, help="folder of YAML files (default: data/world)")
    parser.set_defaults(func=_sample)
    verbs.add_parser("sums", help="write data/SHA256SUMS anew").set_defaults(func=_sums)


def _train(args: argparse.Namespace) -> int:
    from course_utils.organism.recipe import Recipe, train

    chosen = {k: v for k, v in (("d_model", args.d_model), ("steps", args.steps), ("seed", args.seed)) if v is not None}
    if args.install and args.world is not None:
        raise CourseError("--install is for data/world; open your own world with open_lab('<output folder>') instead.")
    folder, started = args.output or build_dir() / "organism", time.perf_counter()
    train(Recipe(**chosen), folder, World.load(args.world))
    # The world travels with the model, so that open_lab(folder) has the answer key.
    shutil.copytree(args.world or DATA / "world", folder / "world", dirs_exist_ok=True)
    print(f"Trained in {time.perf_counter() - started:.0f} s: {folder}")
    _examine(folder, 0)
    if args.install:
        shutil.copytree(folder, DATA / "organism", dirs_exist_ok=True, ignore=shutil.ignore_patterns("world"))
        return _sums(args)
    return 0


def _exam(args: argparse.Namespace) -> int:
    _examine(args.model or DATA / "organism", args.seed)
    return 0


def _examine(folder: Path, seed: int) -> None:
    from transformers import GPT2LMHeadModel

    from course_utils.organism import card, exam

    if not (folder / "config.json").is_file():
        raise CourseError(f"--model {folder}: no config.json there; train one first with 'course organism train'.")
    world = World.load(folder / "world" if (folder / "world").is_dir() else None)
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    if model.config.vocab_size != len(world.vocabulary):
        raise CourseError(
            f"{folder} knows {model.config.vocab_size} tokens, its world {len(world.vocabulary)}: the YAML files "
            "changed since it was trained; train it again."
        )

    def logits(tokens):  # noqa: ANN001, ANN202
        return model(tokens).logits

    results = [*exam.loss_gap(world, logits, seed=seed).values(), *exam.sit(world, logits, seed)]
    for r in results:
        print(f"{r.name:60} {r.measure:14} {r.value:.4f} [{r.low:.4f}, {r.high:.4f}]  n={r.n}")
    (folder / "exam.json").write_text(json.dumps([r._asdict() for r in results], indent=1) + "\n")
    (folder / "README.md").write_text(
        card.write(
            world,
            json.loads((folder / "recipe.json").read_text()),
            results,
            sum(p.numel() for p in model.parameters()),
        ),
        encoding="utf-8",
    )


def _sample(args: argparse.Namespace) -> int:
    world = World.load(args.world)
    for document in itertools.islice(
        world.documents(args.seed, labels=args.labels, entropy=True, topic=args.topic), args.n
    ):
        print(f"[{document.topic}, {len(document.ids)} tokens, {document.entropy:.1f} nats]\n{document.text}\n")
        for i, token in enumerate(document.ids if document.labels else ()):
            known = {k: v[i] for k, v in document.labels.items() if v[i] is not None and k not in ("topic", "template")}
            print(f"  {world.sampler.text_of[token]!r:18} " + "  ".join(f"{k}={v}" for k, v in known.items()))
    return 0


def _sums(_: argparse.Namespace) -> int:
    print(f"data/SHA256SUMS: {write_sums()} files")
    return 0
