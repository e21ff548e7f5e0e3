"""The commands about exercises: ``course exercises``, ``course solved``, ``course progress``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from course_utils.paths import build_dir

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

    from course_utils.cli import runner
    from course_utils.exercises.notebooks import sync

    for path in runner.find(wanted):
        before = path.read_text(encoding="utf-8")
        after = nbformat.writes(sync(nbformat.reads(before, as_version=4))).rstrip("\n") + "\n"
        if after != before:
            runner.write(path, after)
            print(f"{path.name}: headings and hints renewed", file=sys.stderr)


def write_solved(args: argparse.Namespace) -> int:
    """Write every notebook that has exercises again, with the answers in place."""
    import nbformat

    from course_utils.cli import runner
    from course_utils.exercises.notebooks import ids, solve

    folder = Path(args.output).resolve() if args.output else build_dir() / "solved"
    for path in runner.find(args.notebook):
        notebook = nbformat.read(path, as_version=4)
        if ids(notebook):
            runner.write(folder / path.name, nbformat.writes(solve(notebook)).rstrip("\n") + "\n")
            print(f"{folder / path.name}: {len(ids(notebook))} answers")
    return 0


def show_progress(args: argparse.Namespace) -> int:
    """Print what has been done, notebook by notebook; with ``--reset``, forget it."""
    from course_utils.exercises import everything, lessons, progress

    if args.reset:
        return _reset(args.yes)
    book = progress.read()
    lines = [f"{'notebook':<22}{'done':>5}{'tried':>6}{'open':>5}{'stars':>9}{'hints':>6}{'predictions':>12}"
             f"{'minutes left':>13}"]
    sums = [0] * 8
    for number, stem in lessons.LESSONS.items():
        counts = _counts(book, number, everything(number))
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        lines.append(_progress_line(f"{number} {stem.replace('_', ' ')}", counts))
    lines += [_progress_line("together", sums), f"kept in {progress.place() or 'nothing: COURSE_PROGRESS is off'}"]
    print("\n".join(lines))
    return 0


def _counts(book: dict, number: str, all_: list) -> list[int]:
    """Count done, tried, open, stars got, stars to get, hints, predictions and minutes left of a notebook."""
    entries = {ex.id: book.get("exercises", {}).get(ex.id, {}) for ex in all_}
    done = [ex for ex in all_ if entries[ex.id].get("right")]
    tried = [ex for ex in all_ if entries[ex.id].get("tries") and ex not in done]
    made = [key for key, entry in book.get("predictions", {}).items() if key[:2] == number and "guess" in entry]
    return [len(done), len(tried), len(all_) - len(done) - len(tried), sum(ex.stars for ex in done),
            sum(ex.stars for ex in all_), sum(min(entry.get("hints", 0), 2) for entry in entries.values()), len(made),
            sum(ex.minutes for ex in all_ if ex not in done)]


def _progress_line(name: str, counts: list[int]) -> str:
    done, tried, open_, stars, all_stars, hints, predictions, minutes = counts
    return (f"{name:<22}{done:>5}{tried:>6}{open_:>5}{f'{stars} of {all_stars}':>9}{hints:>6}{predictions:>12}"
            f"{minutes:>13}")


def _reset(yes: bool) -> int:
    from course_utils.exercises import progress

    if not yes:
        try:
            yes = input(f"Forget everything in {progress.place()}? Type yes: ").strip().lower() == "yes"
        except EOFError:
            yes = False
    if yes:
        progress.forget()
    print("Forgotten." if yes else "Nothing was changed.")
    return 0 if yes else 1


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add the three commands."""
    listing = commands.add_parser("exercises", help="list the exercises, and prove that their checks can fail")
    listing.add_argument("--json", action="store_true", help="as JSON, mutants included")
    listing.add_argument("--mutants", action="store_true", help="break every answer in small ways; list what survives")
    listing.add_argument("--sync", action="store_true", help="first renew headings and hints in the notebooks")
    listing.set_defaults(func=list_exercises)
    solved = commands.add_parser("solved", help="write the notebooks with the answers in place")
    solved.add_argument("--output", metavar="DIR", help="where to write (default: build/solved)")
    solved.set_defaults(func=write_solved)
    for parser in (listing, solved):
        parser.add_argument("--notebook", nargs="+", default=[], metavar="N", help="only these, such as 02 04")
    done = commands.add_parser("progress", help="what you have done, and what is left")
    done.add_argument("--reset", action="store_true", help="forget it, after asking")
    done.add_argument("--yes", action="store_true", help="do not ask")
    done.set_defaults(func=show_progress)
