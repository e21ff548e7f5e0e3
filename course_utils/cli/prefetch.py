"""``course prefetch``: all that needs a network into one folder, the folder into one file, and the file back.

1. model, 2. text, 3. published SAEs, 4. harvests, 5. what notebooks make while they run; after each the manifest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from course_utils.cli import bundle
from course_utils.errors import CourseError
from course_utils.paths import cache_dir, sha256

TOKENS = 4_000_000  # of text: what a notebook on a GPU reads, both splits; 17 MB, which fit anywhere
SHOWN = 2  # published SAEs that notebook 04 opens


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``prefetch`` to the ``course`` command; it sets ``func(args) -> int``."""
    parser = commands.add_parser("prefetch", help="fetch a model, SAEs and text once, for rooms without a network")
    parser.add_argument("--model", default="gpt2", help="a name on the hub (default gpt2), or a local directory")
    parser.add_argument("--text", metavar="FILE", help="UTF-8 text, or hub:<data set> (default: what suits the model)")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N",
                        help=f"tokens of a data set's text to keep (default {TOKENS:,})")
    parser.add_argument("--sae", nargs="+", default=[], metavar="NAME",
                        help="published SAEs (default: those that notebook 04 shows)")
    parser.add_argument("--hook", nargs="+", default=[], metavar="HOOK[:N]",
                        help="keep the activations that harvest(lab, HOOK, N) returns")
    parser.add_argument("--notebook", nargs="+", default=[], metavar="NN",
                        help="run these (or: all), and keep the SAEs and activations that they make")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder to fill (default: COURSE_CACHE or the user's)")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="then write the folder into one archive")
    parser.add_argument("--from", dest="archive", type=Path, metavar="FILE", help="unpack such an archive; no network")
    parser.set_defaults(func=prefetch)


def prefetch(args: argparse.Namespace) -> int:
    """Fill a folder, pack it, or unpack it, and say how it is used."""
    if args.archive is None and args.model == "organism":
        print("The organism lies in the repository, with its text and its SAEs: it needs no network.")
        return 0
    if args.tokens < 1:
        raise CourseError(f"tokens={args.tokens} must be 1 or more.")
    with _filling(args.to) as root:
        if args.archive:
            made, failed = bundle.unpack(args.archive, root)["made"], 0
        else:
            failed = _fill(root, args)
            made = bundle.read(root)["made"]
        if args.bundle:
            size = bundle.pack(root, args.bundle.expanduser())
            print(f"{args.bundle}: {size / 1e6:,.1f} MB. On the other machines: course prefetch --from "
                  f"{args.bundle.name} --to DIR")
    print(usage(root, made))
    return 1 if failed else 0


def usage(root: Path, made: dict[str, dict[str, Any]]) -> str:
    """Say how a filled folder is used."""
    lines = ["It is used wherever COURSE_CACHE names the folder, without asking the network:"]
    for model, how in made.items():
        name = root / how["copy"] if how["copy"] else model
        text = f" --text {root / how['text']}" if how["text"] else ""
        lines.append(f"    COURSE_CACHE={root} course run --model {name}{text}")
    return "\n".join([*lines, f"    %env COURSE_CACHE={root}          # in a notebook's first cell"])


@contextmanager
def _filling(to: Path | None) -> Iterator[Path]:
    """Make a folder the course's cache for this process and those that it starts, alone."""
    from filelock import FileLock, Timeout

    if to:
        os.environ["COURSE_CACHE"] = str(to.expanduser().resolve())
    root = cache_dir().resolve()
    with bundle.writing(f"to={str(root)!r}", "run this again, and it goes on from there"):
        try:
            with FileLock(root / ".prefetch.lock", timeout=0):
                yield root
        except Timeout as error:
            raise CourseError(f"to={str(root)!r} is being filled by another course prefetch; wait for it.") from error


def _fill(root: Path, args: argparse.Namespace) -> int:
    """Fetch and make all that is missing; return how many of its parts could not be had."""
    from course_utils.lab import open_lab
    from course_utils.lab.stream import Stream

    damaged = bundle.drop_damaged(root)
    for name in damaged:
        print(f"{name} was missing or damaged: it is fetched again.")
    for left in root.glob("hub/*/blobs/*.incomplete"):  # of a download that was killed
        left.unlink()
    model, copy = _model(root, args.model, damaged)
    print(f"model: {args.model}")
    text = _text_file(root, args.text)
    lab = open_lab(model, text=str(text) if text else args.text, quiet=True)
    how = {"copy": copy and copy.relative_to(root).as_posix(), "text": text and text.relative_to(root).as_posix()}
    bundle.record(root, **{args.model if copy is None else lab.name: how})
    if isinstance(lab.text.texts, Stream):
        _keep_text(root, lab.text.texts.dataset, lab, args.tokens)
    failed = 0 if copy and not args.sae else _saes(lab, args.sae)
    bundle.record(root)
    _harvest(lab, args.hook)
    bundle.record(root)
    failed += _run(args, model, text) if args.notebook else 0
    files = bundle.record(root)["files"]
    size = sum((root / name).stat().st_size for name in files)
    print(f"{root}: {len(files)} files, {size / 1e6:,.1f} MB, each with its SHA-256 in {bundle.MANIFEST}.")
    return failed


def _model(root: Path, model: str, damaged: Sequence[str]) -> tuple[str, Path | None]:
    """Fetch a model into the hub's cache, or copy a directory; return what opens it, and the copy."""
    from course_utils.lab import models

    there = Path(model).expanduser()
    if not there.is_dir():
        if any(name.startswith("hub/models--") for name in damaged):
            models.fetch(model)
        models.find_model(model)
        return model, None
    models.check_directory(there)
    copy = root / "models" / there.resolve().name
    for file in models.files_of(there):
        _copy(file, copy / file.relative_to(there))
    return str(copy), copy


def _text_file(root: Path, text: str | None) -> Path | None:
    """Copy a text file; None where there is none."""
    if not text or text.startswith("hub:") or text == "world":
        return None
    path = Path(text).expanduser()
    if not path.is_file():
        raise CourseError(f"text={text!r} is not a file; give a UTF-8 text file, or hub:<data set>.")
    return _copy(path, root / "texts" / path.name)


def _copy(file: Path, to: Path) -> Path:
    if file.resolve() != to.resolve() and not (to.is_file() and sha256(to) == sha256(file)):
        to.parent.mkdir(parents=True, exist_ok=True)
        draft = to.with_name(to.name + ".part")
        shutil.copyfile(file, draft)
        os.replace(draft, to)
    return to


def _keep_text(root: Path, dataset: str, lab: Any, n_tokens: int) -> None:
    """Keep a data set's first texts, until they have ``n_tokens`` tokens."""
    from tqdm.auto import tqdm

    from course_utils.lab import kept_texts
    from course_utils.lab.stream import streamed

    def size(texts: Sequence[str]) -> int:
        return sum(map(len, lab.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])) if texts else 0

    got = number = 0
    live, at = None, -1
    with tqdm(total=n_tokens, desc=f"text {dataset}", unit="tok", unit_scale=True, disable=None) as bar:
        while got < n_tokens:
            files = kept_texts.shards(dataset)
            if number < len(files):
                texts = kept_texts.load(files[number])
            else:
                if at != number:  # the first, or one behind a gap that was filled
                    live = streamed(dataset, number * kept_texts.SHARD)
                texts = list(islice(live, kept_texts.SHARD))
                kept_texts.write(root, dataset, texts)
                at = number + 1
            n, number = size(texts), number + 1
            got += n
            bar.update(n)
            if len(texts) < kept_texts.SHARD:
                break
    print(f"text: {got:,} tokens of {dataset}" + ("" if got >= n_tokens else ", which has no more"))


def _saes(lab: Any, asked: Sequence[str]) -> int:
    """Fetch SAEs: without those asked for nothing goes on, others may be missing; return how many are."""
    from course_utils.dictionaries import load_sae
    from course_utils.dictionaries.published import listed_saes

    missing = 0
    for name in asked or listed_saes(lab, lab.middle_hook)[:SHOWN]:
        try:
            load_sae(name)
            print(f"SAE: {name}")
        except CourseError as error:
            if asked:
                raise
            missing += 1
            print(f"SAE: left out, {error}")
    return missing


def _harvest(lab: Any, hooks: Sequence[str]) -> None:
    """Harvest as ``harvest(lab, hook, n)`` would, where it will look."""
    from course_utils.activations import harvest

    os.environ["COURSE_KEEP"] = "1"
    for asked in hooks:
        hook, _, n = asked.partition(":")
        if n and not n.isdecimal():
            raise CourseError(f"hook={asked!r} must be a hook, or a hook and a number of tokens as in {hook}:24000.")
        acts = harvest(lab, hook, **{"n_tokens": int(n)} if n else {})
        print(f"activations: {len(acts):,} at {hook}")


def _run(args: argparse.Namespace, model: str, text: Path | None) -> int:
    """Run notebooks so that they leave behind what they make; return how many failed."""
    from course_utils.cli import runner

    notebooks = runner.find([] if "all" in args.notebook else args.notebook)
    with tempfile.TemporaryDirectory() as build:
        settings = runner.Settings(Path(build), model, str(text) if text else args.text, timeout=float(24 * 60 * 60))
        outcomes = runner.execute(notebooks, settings)
    for outcome in outcomes:
        print(f"{outcome.status} {outcome.notebook}, {outcome.seconds:.0f} s"
              + (f": {outcome.failure.error}" if outcome.failure else ""))
    return sum(outcome.failure is not None for outcome in outcomes)
