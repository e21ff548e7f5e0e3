"""``course saes train · list · frontier``: rebuild the SAEs that are shipped for the organism; how good SAEs are."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from course_utils.cli import frontier
from course_utils.errors import CourseError, one_of
from course_utils.paths import DATA, build_dir, write_sums

THREADS = 2  # the order of sums, and with it the last bits, depends on their number


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add ``saes`` and its verbs to the ``course`` command; each sets ``func(args) -> int``."""
    verbs = commands.add_parser("saes", help="list or rebuild the SAEs of the embedded model").add_subparsers(
        dest="verb", required=True, metavar="train|list|frontier")
    parser = verbs.add_parser("train", help="train them from nothing (goes on with a run that was cut off)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these, such as layer-1-width-1024")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to put them (default: build/saes)")
    parser.add_argument("--recipes", type=Path, metavar="FILE", help="what to train (default: data/saes/saes.yaml)")
    parser.add_argument("--install", action="store_true", help="also put them into data/saes, with new checksums")
    parser.set_defaults(func=train)
    parser = verbs.add_parser("list", help="print their names and figures")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to look into (default: data/saes)")
    parser.set_defaults(func=show)
    frontier.add_parser(verbs)


def show(args: argparse.Namespace) -> int:
    """Print a table of a folder's SAEs."""
    from course_utils.dictionaries import shelf

    cards = shelf.saes(args.out)
    if not cards:
        raise CourseError(f"{args.out or 'data/saes'} holds no SAE; make some with 'course saes train'.")
    print(shelf.table(cards))
    return 0


def train(args: argparse.Namespace) -> int:
    """Make the SAEs that are not there yet, one after another."""
    import torch

    from course_utils.dictionaries import shelf
    from course_utils.dictionaries.ready import JUDGED, make_sae
    from course_utils.lab import open_lab, random_twin

    plain, twins = (shelf.recipes(args.recipes, twin=twin) for twin in (False, True))
    wanted = _chosen(plain | twins, args.only)
    out, work = args.out or build_dir() / "saes", build_dir() / "saes.work"
    torch.set_num_threads(THREADS)
    organism = open_lab("organism", device="cpu", text="world", quiet=True)
    twin = random_twin(organism) if {*twins} & {*wanted} else None
    for number, (name, spec) in enumerate(wanted.items(), 1):
        lab, found, begun = twin if name in twins else organism, shelf.card(out / name) or {}, time.perf_counter()
        if asdict(spec) | {"weights": lab.fingerprint} == {key: found.get(key) for key in (*asdict(spec), "weights")}:
            print(f"{name} is there already.")
            continue
        print(f"{name} ({number} of {len(wanted)}): {spec.width:,} latents at {spec.hook}", flush=True)
        found = make_sae(lab, spec, out / name, work, JUDGED)
        print(f"{name}: L0 {found['figures']['l0'][0]:.2f}, explained variance "
              f"{found['figures']['explained_variance'][0]:.3f}, {time.perf_counter() - begun:.0f} s")
    shutil.rmtree(work, ignore_errors=True)
    if args.install:
        install(out, list(wanted))
    return 0


def _chosen(recipes: dict[str, Any], only: Sequence[str]) -> dict[str, Any]:
    for name in only:
        if name not in recipes:
            raise one_of("--only", name, recipes, limit=len(recipes))
    return {name: spec for name, spec in recipes.items() if not only or name in only}


def install(out: Path, names: Sequence[str]) -> None:
    """Put SAEs into ``data/saes``, drop those that no recipe names, and write the page about them and the checksums."""
    from course_utils.dictionaries import shelf

    home = DATA / "saes"
    for name in names:
        shutil.copytree(out / name, home / name, dirs_exist_ok=True)
    for name in {*shelf.saes()} - {*shelf.recipes(), *shelf.recipes(twin=True)}:
        shutil.rmtree(home / name)
    (home / "README.md").write_text(shelf.page(shelf.saes()), encoding="utf-8")
    print(f"data/SHA256SUMS: {write_sums()} files")
