"""The command ``course grade``: other people's notebooks, locked in, checked from outside, in one table."""

from __future__ import annotations

import argparse
from pathlib import Path

from course_utils.errors import CourseError, one_of
from course_utils.paths import build_dir


def grade(args: argparse.Namespace) -> int:
    """Grade a folder of submissions and write the CSV."""
    from course_utils.exercises.lessons import LESSONS
    from course_utils.grading import submissions, table
    from course_utils.grading.remote import Limits

    for name, least in (("timeout", 1), ("memory", 256), ("jobs", 1)):
        if getattr(args, name) < least:
            raise CourseError(f"{name}={getattr(args, name)} must be at least {least}.")
    if args.notebook and args.notebook.zfill(2) not in LESSONS:
        raise one_of("notebook", args.notebook, LESSONS)
    limits = Limits(args.timeout, args.memory, args.unprotected)
    works = submissions.find(Path(args.folder), args.notebook and args.notebook.zfill(2))
    target = Path(args.csv) if args.csv else build_dir() / "grades.csv"
    table.check_place(limits, Path(args.folder), target)
    print(f"isolation: {table.isolation(limits)}")
    grades = table.grade_all(works, limits, args.jobs, target.with_suffix(".json"), args.again)
    table.write_csv(grades, target)
    lines = [f"{row['student']:<24.24} {row['points']:>4} of {row['of']:<4} {row['seconds']:>7} s  {row['problem']}"
             for row in table.rows(grades)]
    print("\n".join([*(line.rstrip() for line in lines), f"table: {target}"]))
    return 0


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("grade", help="grade submitted notebooks, each locked in a process of its own")
    parser.add_argument("folder", metavar="DIR", help="holds <student>.ipynb, <student>_02.ipynb or <student>/*.ipynb")
    parser.add_argument("--notebook", default="", metavar="N", help="only this notebook, such as 02")
    parser.add_argument("--csv", metavar="FILE", help="where to write (default: build/grades.csv)")
    parser.add_argument("--jobs", type=int, default=1, help="submissions at a time (default 1)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds for each (default 120)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory for each (default 1024)")
    parser.add_argument("--again", action="store_true", help="also those that are graded already")
    parser.add_argument("--unprotected", action="store_true", help="where nothing can lock them in: if you trust them")
    parser.set_defaults(func=grade)
