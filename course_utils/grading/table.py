"""Grade a folder of submissions, whatever is in it: several at a time, resumable, into one CSV with a row a student."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from tqdm.auto import tqdm

from course_utils import __version__
from course_utils.errors import CourseError
from course_utils.exercises.book import everything
from course_utils.exercises.lessons import LESSONS
from course_utils.grading import cage
from course_utils.grading.marks import Grade, Mark, digest, grade
from course_utils.grading.remote import Limits, Remote
from course_utils.grading.submissions import Submission
from course_utils.paths import write_text

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet takes a cell for a formula


def isolation(limits: Limits) -> str:
    """Start a process as submissions get one, and return what holds it.

    Raises
    ------
    CourseError
        If this machine cannot lock one.
    """
    try:
        with Remote(b'{"cells": []}', limits) as remote:
            remote.open()
            return remote.isolation
    except CourseError as error:
        raise CourseError(f"{str(error).rstrip('.')}. Grade on Linux, or in a virtual machine; --unprotected grades "
                          "here, and then a submission can read and write whatever you can.") from None


def check_place(limits: Limits, *places: Path) -> None:
    """Refuse folders that every submission may read.

    Raises
    ------
    CourseError
        If one lies inside Python's own folders, or the course's.
    """
    for place in () if limits.unprotected else places:
        inside = [root for root in cage.readable() if root == place.resolve() or root in place.resolve().parents]
        if inside:
            raise CourseError(f"{str(place)!r} lies inside {str(inside[0])!r}, which submissions may read; move it "
                              "elsewhere.")


def grade_all(works: list[Submission], limits: Limits, jobs: int, kept: Path | None = None,
              again: bool = False) -> list[Grade]:
    """Grade submissions; one that cannot be graded never stops the others.

    Parameters
    ----------
    works
        From `submissions.find`.
    limits
        For each.
    jobs
        How many at a time.
    kept
        File that keeps each grade as soon as it is there; what it has already is not graded anew.
    again
        Grade all of them anew.
    """
    book = _open(kept)
    names = [f"{__version__}/{work.notebook}/{digest(work)}" for work in works]
    done = {i: _grade(book[names[i]], work) for i, work in enumerate(works) if names[i] in book and not again}
    left = [i for i in range(len(works)) if i not in done]
    with tqdm(total=len(works), initial=len(done), desc="grading", unit="notebook") as bar:
        for i, result in _each(works, left, limits, jobs):
            done[i] = result
            if kept is not None and not names[i].endswith("/"):
                book[names[i]] = result._asdict()
                write_text(kept, json.dumps(book, ensure_ascii=False, indent=1))
            bar.update()
    return [done[i] for i in range(len(works))]


def _each(works: list[Submission], left: list[int], limits: Limits, jobs: int) -> Iterator[tuple[int, Grade]]:
    """Yield grades as they come; if a grader dies, go on one by one, so that it shows of which submission it died."""
    left, batch = list(left), list(left)
    while left:
        with ProcessPoolExecutor(min(jobs, len(batch)), mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(grade, works[i], limits): i for i in batch}
            for future in as_completed(futures):
                i = futures[future]
                try:
                    result = future.result()
                except BrokenProcessPool:
                    if len(batch) > 1:
                        continue
                    result = Grade(works[i].student, works[i].notebook, {}, 0, 0.0, "the grader itself died of it.")
                left.remove(i)
                yield i, result
        batch = left[:1]


def _open(kept: Path | None) -> dict:
    try:
        book = json.loads(kept.read_text(encoding="utf-8")) if kept is not None and kept.exists() else {}
        return book if isinstance(book, dict) else {}
    except ValueError:  # cut short: what it knew is found again by grading
        return {}


def _grade(entry: dict, work: Submission) -> Grade:
    marks = {id: Mark(*mark) for id, mark in entry["marks"].items()}
    return Grade(**entry | {"marks": marks, "student": work.student})


def rows(grades: list[Grade]) -> list[dict[str, str]]:
    """Return a row a student: points by stars, each exercise's state and what is said of it, seconds, problems."""
    numbers = sorted({one.notebook for one in grades if one.notebook in LESSONS})
    asked = [ex for number in numbers for ex in everything(number)]
    by_student: dict[str, list[Grade]] = {}
    for one in grades:
        by_student.setdefault(one.student, []).append(one)
    return [_row(student, mine, asked) for student, mine in by_student.items()]


def _row(student: str, mine: list[Grade], asked: list) -> dict[str, str]:
    marks: dict[str, Mark] = {}
    problems = []
    for one in mine:
        twice = [id for id in one.marks if id in marks]
        problems += [f"notebook {one.notebook} is there twice; the last is graded."] if twice else []
        problems += [f"{one.notebook}: {one.problem}".removeprefix(": ")] if one.problem else []
        marks |= one.marks
    got = {ex.id: marks.get(ex.id, Mark("missing")) for ex in asked}
    right = [ex for ex in asked if got[ex.id].state == "right"]
    row = {"student": student, "notebooks": " ".join(sorted({one.notebook for one in mine if one.notebook})),
           "points": str(sum(ex.stars for ex in right)), "of": str(sum(ex.stars for ex in asked)),
           "right": str(len(right)), "exercises": str(len(asked)),
           "predictions": str(sum(one.predictions for one in mine)),
           "seconds": f"{sum(one.seconds for one in mine):.1f}", "problem": " ".join(problems)}
    for id, mark in got.items():
        row |= {id: mark.state, f"{id} says": mark.says}
    return row


def write_csv(grades: list[Grade], path: Path) -> None:
    """Write the table; no cell of it is a formula, whatever a student is called."""
    table = rows(grades)
    page = io.StringIO()
    writer = csv.DictWriter(page, list(table[0]))
    writer.writeheader()
    for row in table:
        writer.writerow({name: f"'{text}" if text.startswith(_FORMULA) else text for name, text in row.items()})
    # With a mark, or Excel takes it for another encoding.
    write_text(path, page.getvalue(), encoding="utf-8-sig", newline="")
