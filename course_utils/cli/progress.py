"""The commands about a student's own work: ``course progress`` (done, left, where was I) and ``course reset``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from course_utils.errors import CourseError
from course_utils.paths import build_dir, write_text

if TYPE_CHECKING:
    from course_utils.exercises.book import Exercise
    from course_utils.exercises.progress import Book


class Place(NamedTuple):
    """Where somebody stopped: the keys last touched (None if none was), and the exercise to do next, if any is left."""

    notebook: str | None
    exercise: str | None
    next: str | None


def where(book: Book, order: Sequence[Exercise]) -> Place:
    """Say where somebody was.

    Parameters
    ----------
    book
        What is known, as ``progress.read`` returns it.
    order
        All exercises, in order.

    Returns
    -------
    Place
        Next is the exercise last touched as long as it is not right, else the first that is open behind it in its
        notebook, else in that notebook, else behind it, else anywhere.
    """
    keys = list(book.get("touched", {}))
    ids = [ex.id for ex in order]
    touched = [key for key in keys if key in ids]
    notebook, last = (keys[-1][:2] if keys else None), (touched[-1] if touched else None)
    left = [id for id in ids if not book.get("exercises", {}).get(id, {}).get("right")]
    here = last if last and last[:2] == notebook else f"{notebook or ''}."
    ahead = [id for id in left if _rank(id) >= _rank(here)]
    same = [id for id in left if id[:2] == notebook]
    found = [id for id in ahead if id[:2] == notebook] or same or ahead or left
    return Place(notebook, last, found[0] if found else None)


def _rank(id: str) -> tuple[str, int]:
    return id[:2], int(id[3:] or 0)


def show(args: argparse.Namespace) -> int:
    """Print what has been done, notebook by notebook, and where to go on; with ``--reset``, forget it."""
    from course_utils.exercises import everything, lessons, progress

    if args.reset:
        return _forget(args.yes)
    book = progress.read()
    lines = [f"{'notebook':<22}{'done':>5}{'tried':>6}{'open':>5}{'stars':>9}{'hints':>6}{'predictions':>12}"
             f"{'minutes left':>13}"]
    sums = [0] * 8
    for number, stem in lessons.LESSONS.items():
        counts = _counts(book, number, everything(number))
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        lines.append(_line(f"{number} {stem.replace('_', ' ')}", counts))
    lines += [_line("together", sums), "", *_where(book, everything()),
              f"kept in {progress.place() or 'nothing: COURSE_PROGRESS is off'}"]
    print("\n".join(lines))
    return 0


def _where(book: Book, order: list[Exercise]) -> Iterator[str]:
    place, by_id = where(book, order), {ex.id: ex for ex in order}
    if place.notebook:
        touched = book["touched"]
        yield f"last touched: notebook {place.notebook}, {_when(touched[next(reversed(touched))])}"
    if place.exercise:
        right = book.get("exercises", {}).get(place.exercise, {}).get("right")
        yield (f"last exercise: {place.exercise} {by_id[place.exercise].title}, {'right' if right else 'not right yet'}"
               f", {_when(book['touched'][place.exercise])}")
    if place.next:
        ex = by_id[place.next]
        left = [other for other in order if not book.get("exercises", {}).get(other.id, {}).get("right")]
        here = sum(other.minutes for other in left if other.notebook == ex.notebook)
        yield (f"next to do: {ex.id} {ex.title}, {'★' * ex.stars}, {ex.minutes} min; left in notebook {ex.notebook}: "
               f"{here} min")
    else:
        yield "next to do: nothing, all exercises are right"


def _when(entry: dict) -> str:
    return entry["when"].replace("T", " ")[:16]


def _counts(book: Book, number: str, all_: list[Exercise]) -> list[int]:
    """Count done, tried, open, stars got, stars to get, hints, predictions and minutes left of a notebook."""
    entries = {ex.id: book.get("exercises", {}).get(ex.id, {}) for ex in all_}
    done = [ex for ex in all_ if entries[ex.id].get("right")]
    tried = [ex for ex in all_ if entries[ex.id].get("tries") and ex not in done]
    made = [key for key, entry in book.get("predictions", {}).items() if key[:2] == number and "guess" in entry]
    return [len(done), len(tried), len(all_) - len(done) - len(tried), sum(ex.stars for ex in done),
            sum(ex.stars for ex in all_), sum(min(entry.get("hints", 0), 2) for entry in entries.values()), len(made),
            sum(ex.minutes for ex in all_ if ex not in done)]


def _line(name: str, counts: list[int]) -> str:
    done, tried, open_, stars, all_stars, hints, predictions, minutes = counts
    return (f"{name:<22}{done:>5}{tried:>6}{open_:>5}{f'{stars} of {all_stars}':>9}{hints:>6}{predictions:>12}"
            f"{minutes:>13}")


def _forget(yes: bool) -> int:
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


def reset(args: argparse.Namespace) -> int:
    """Empty exercises in the student's notebooks, and forget that they were done."""
    from course_utils.exercises import progress

    for path, ids in _asked(args).items():
        kept = _empty(path, ids)
        progress.forget_exercises(ids)
        print(f"{path.name}: {', '.join(ids)} {'is' if len(ids) == 1 else 'are'} empty and forgotten.")
        if kept:
            print(f"  What was there is in {kept}\n  Is the notebook open? Reload it from disk before you save it, "
                  "or the old answer comes back.")
    return 0


def _asked(args: argparse.Namespace) -> dict[Path, list[str]]:
    """Return which exercises to empty in which notebook file.

    Raises
    ------
    CourseError
        If nothing is named, or an exercise is not in the file it should be in.
    """
    import nbformat

    from course_utils.cli import runner
    from course_utils.exercises import find
    from course_utils.exercises.notebooks import ids as ids_in

    named = [find(id).id for id in args.exercise]
    if not named and not args.notebook and not args.file:
        raise CourseError("name what to reset: course reset 04.3, or a whole notebook: course reset --notebook 04.")
    if args.file:
        path = Path(args.file)
        if not path.is_file():
            raise CourseError(f"file={args.file!r} is not a file; give the path of a notebook.")
        return {path: named or ids_in(nbformat.read(path, as_version=4))}
    asked = {path: ids_in(nbformat.read(path, as_version=4)) for path in runner.find(args.notebook) if args.notebook}
    for id in named:
        ids = asked.setdefault(runner.find([id[:2]])[0], [])
        ids += [id] if id not in ids else []
    return asked


def _empty(path: Path, ids: list[str]) -> Path | None:
    """Empty exercises in one file; return where the file as it was is kept, None if nothing had to change."""
    import nbformat

    from course_utils.exercises.notebooks import empty

    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    if not [id for id in ids if empty(notebook, id)]:
        return None
    kept = _backups() / f"{path.stem}.{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06}.ipynb"
    write_text(kept, before)
    write_text(path, nbformat.writes(notebook).rstrip("\n") + "\n")
    return kept


def _backups() -> Path:
    from course_utils.exercises import progress

    file = progress.place()
    return (file.parent if file else build_dir()) / "progress-backups"


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add the two commands."""
    done = commands.add_parser("progress", help="what you have done, what is left, and where you were")
    done.add_argument("--reset", action="store_true", help="forget it, after asking")
    done.add_argument("--yes", action="store_true", help="do not ask")
    done.set_defaults(func=show)
    anew = commands.add_parser("reset", help="empty an exercise in your notebook and forget it; a copy is kept")
    anew.add_argument("exercise", nargs="*", metavar="ID", help="exercises, such as 04.3")
    anew.add_argument("--notebook", nargs="+", default=[], metavar="N", help="all exercises of these notebooks")
    anew.add_argument("--file", metavar="PATH", help="a notebook that lies elsewhere; without ID, all its exercises")
    anew.set_defaults(func=reset)
