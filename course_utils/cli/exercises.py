"""The commands about exercises: ``course exercises`` and ``course solved``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from course_utils.cli import progress
from course_utils.paths import build_dir, write_text

_SUMMED = ("minutes", "hints", "right_answers", "wrong_answers", "mutants", "killed")
_STARS = {0: "☆☆☆", 1: "★☆☆", 2: "★★☆", 3: "★★★"}


def list_exercises(args: argparse.Namespace) -> int:
    """List the exercises; with ``--sync``, first renew what notebooks say about them."""
    from course_utils import exercises

    if args.sync:
        _sync(args.notebook)
    chosen = [ex for number in _numbers(args.notebook) for ex in exercises.everything(number)]
    scores = _scores(chosen) if args.mutants or args.json else {}
    rows = [_row(ex, scores.get(ex.id)) for ex in chosen]
    totals = {"exercises": len(rows), **{key: _total(rows, key) for key in _SUMMED}}
    if args.json:
        print(json.dumps({"exercises": rows, "totals": totals}, indent=1, ensure_ascii=False))
    else:
        print(_table(rows, totals))
    if args.mutants:
        slowest = max(scores, key=lambda id: scores[id].seconds, default=None)
        if slowest:
            print(f"the slowest check, {slowest}, takes {scores[slowest].seconds:.3f} s", file=sys.stderr)
        for id, score in scores.items():
            for change in score.survivors:
                print(f"{id} survives: {change}", file=sys.stderr)
    return 0


def _numbers(wanted: Sequence[str]) -> list[str | None]:
    """Return the notebooks asked for as two digits; None means all of them."""
    return sorted({Path(name).name.split("_")[0].removesuffix(".ipynb").zfill(2) for name in wanted}) or [None]


def _scores(chosen: list) -> dict[str, Any]:
    from tqdm import tqdm

    from course_utils.exercises.mutants import score

    return {ex.id: score(ex) for ex in tqdm(chosen, desc="mutants", unit="exercise", leave=False, disable=None)}


def _row(ex: Any, score: Any) -> dict[str, Any]:
    return {"id": ex.id, "notebook": ex.notebook, "title": ex.title, "stars": ex.stars, "minutes": ex.minutes,
            "lines": ex.lines, "hints": len(ex.hints), "right_answers": len(ex.rights),
            "wrong_answers": len(ex.wrongs), "mutants": score and score.mutants, "killed": score and score.killed}


def _total(rows: list[dict], key: str) -> int | None:
    values = [row[key] for row in rows]
    return None if None in values else sum(values)


def _table(rows: list[dict], totals: dict) -> str:
    lines = [f"{'id':<6}{'title':<34}{'':5}{'min':>4}{'lines':>6}{'right':>6}{'wrong':>6}{'mutants killed':>16}"]
    for row in [*rows, {"id": "", "title": f"{totals['exercises']} exercises", "stars": None, "lines": "", **totals}]:
        killed = "–" if row["killed"] is None else f"{row['killed']} of {row['mutants']}"
        lines.append(f"{row['id']:<6}{row['title'][:33]:<34}{_STARS.get(row['stars'], ''):5}{row['minutes']:>4}"
                     f"{row['lines']:>6}{row['right_answers']:>6}{row['wrong_answers']:>6}{killed:>16}")
    return "\n".join(lines)


def _sync(wanted: Sequence[str]) -> None:
    import nbformat

    from course_utils.cli import doctor, runner
    from course_utils.exercises.notebooks import put, sync

    for path in runner.find(wanted):
        before = path.read_text(encoding="utf-8")
        notebook = sync(nbformat.reads(before, as_version=4))
        put(notebook, "footer", doctor.box(), len(notebook.cells))
        after = nbformat.writes(notebook).rstrip("\n") + "\n"
        if after != before:
            write_text(path, after)
            print(f"{path.name}: headings, hints and footer renewed", file=sys.stderr)


def write_solved(args: argparse.Namespace) -> int:
    """Write every notebook that has exercises again, with the answers in place."""
    import nbformat

    from course_utils.cli import runner
    from course_utils.exercises.notebooks import ids, solve

    folder = Path(args.output).resolve() if args.output else build_dir() / "solved"
    for path in runner.find(args.notebook):
        notebook = nbformat.read(path, as_version=4)
        if ids(notebook):
            write_text(folder / path.name, nbformat.writes(solve(notebook)).rstrip("\n") + "\n")
            print(f"{folder / path.name}: {len(ids(notebook))} answers")
    return 0


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add these commands and those about a student's own work."""
    listing = commands.add_parser("exercises", help="list the exercises, and prove that their checks can fail")
    listing.add_argument("--json", action="store_true", help="as JSON, mutants included")
    listing.add_argument("--mutants", action="store_true", help="break every answer in small ways; list what survives")
    listing.add_argument("--sync", action="store_true", help="first renew headings, hints and footers in the notebooks")
    listing.set_defaults(func=list_exercises)
    solved = commands.add_parser("solved", help="write the notebooks with the answers in place")
    solved.add_argument("--output", metavar="DIR", help="where to write (default: build/solved)")
    solved.set_defaults(func=write_solved)
    for parser in (listing, solved):
        parser.add_argument("--notebook", nargs="+", default=[], metavar="N", help="only these, such as 02 04")
    progress.add_parsers(commands)
