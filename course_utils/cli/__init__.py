"""The ``course`` command: run, report, doctor, exercises, progress, prefetch, grade and others (``course --help``).

A command returns 0 when all went well, 1 when a notebook failed or the machine needs mending, 2 when it was
asked for something that cannot be done (one sentence on stderr), 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from course_utils import __version__
from course_utils.cli import badges, causality, exercises, grading, instructors, prefetch, saes
from course_utils.errors import CourseError
from course_utils.paths import build_dir

if TYPE_CHECKING:
    from course_utils.cli.runner import Outcome


def _build(output: str | None) -> Path:
    """Return the folder to write to, made and proved writable."""
    if output:
        os.environ["COURSE_BUILD"] = str(Path(output).resolve())
    try:
        folder = build_dir().resolve()
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        named = output or os.environ.get("COURSE_BUILD", "build")
        why = error.strerror or error
        raise CourseError(f"output={named!r} cannot be written ({why}); name another: --output.") from None
    return folder


def _local(model: str) -> str:
    """Return a local directory as an absolute path (kernels run elsewhere), any other name as it is."""
    there = Path(model).expanduser()
    if model.startswith((".", "/", "~")) and not there.is_dir():
        raise CourseError(f"model={model!r} is not a directory; give one with a model in it, or a name.")
    return str(there.resolve()) if model != "organism" and there.is_dir() else model


def _text(name: str | None) -> str | None:
    """Return a file as an absolute path, a data set of the hub as it is."""
    if not name or name.startswith("hub:"):
        return name or None
    if not Path(name).expanduser().is_file():
        raise CourseError(f"text={name!r} is not a file; give a UTF-8 text file, or hub:<data set>.")
    return str(Path(name).expanduser().resolve())


def show_doctor(args: argparse.Namespace) -> int:
    """Examine this machine and print what is there and what needs mending."""
    from course_utils.cli import doctor as room

    checks = room.examine()
    well = all(check.level != "problem" for check in checks)
    found = {"ok": well, "checks": [check._asdict() for check in checks]}
    print(json.dumps(found, indent=1) if args.json else room.show(checks))
    return 0 if well else 1


def run_notebooks(args: argparse.Namespace) -> int:
    """Execute the notebooks, one line about each, then the report."""
    from course_utils.cli import runner
    from course_utils.cli.doctor import machine, versions

    model, text = _local(args.model), _text(args.text)
    notebooks, begun = runner.find(args.notebook), time.monotonic()
    settings = runner.Settings(_build(args.output), model, text, args.timeout, args.jobs)
    outcomes = runner.execute(notebooks, settings)
    for outcome in outcomes:
        print(_line(outcome))
    took = f"{time.monotonic() - begun:,.0f} s, {args.jobs} at a time"
    runner.record(outcomes, settings.build, date=time.strftime("%Y-%m-%d %H:%M"), model=model,
                  text=text and Path(text).name, machine=machine(), versions=versions(), time=took)
    write_report(args)
    return 1 if any(outcome.failure for outcome in outcomes) else 0


def _line(outcome: Outcome) -> str:
    memory = f"{outcome.peak_mb:,.0f} MiB" if outcome.peak_mb else "–"
    line = f"{outcome.status:<7} {outcome.notebook:<40} {outcome.seconds:7.1f} s {memory:>10}"
    if not outcome.failure:
        return line
    cell, code, error = outcome.failure
    where = f"in cell [{cell}]: {code}" if cell else "before its first cell"
    return f"{line}\n        {where}\n        {error}"


def write_report(args: argparse.Namespace) -> int:
    """Write the report again from what the last run left."""
    from course_utils.cli.report import make

    print(f"report: {make(_build(args.output))}")
    return 0


def write_site(args: argparse.Namespace) -> int:
    """Write the course as a web site."""
    from course_utils.cli.site import make

    print(f"site: {make(_build(args.output))}")
    return 0


def show_version(_: argparse.Namespace) -> int:
    """Print the version."""
    print(f"course {__version__}")
    return 0


def _from_one(kind: type) -> Callable[[str], float | int]:
    def read(text: str) -> float | int:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not 1 <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
        return value

    return read


def _run_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("run", help="execute the notebooks headless and write build/report.html")
    parser.add_argument("--model", default=os.environ.get("COURSE_MODEL") or "organism",
                        help="organism (default), gpt2, a name on the hub, or a local directory")
    parser.add_argument("--text", default=os.environ.get("COURSE_TEXT"), metavar="FILE",
                        help="UTF-8 text to read, documents separated by <|endoftext|> or blank lines, or "
                        "hub:<data set>; needed with a local directory")
    parser.add_argument("--notebook", nargs="+", default=[], metavar="N", help="only these, such as 04 05")
    parser.add_argument("--jobs", type=_from_one(int), default=1, help="notebooks at a time (default 1)")
    parser.add_argument("--timeout", type=_from_one(float), default=600.0, metavar="S",
                        help="seconds for each notebook (default 600)")
    parser.add_argument("--output", metavar="DIR", help="where to write (default: build/ of the checkout)")
    parser.set_defaults(func=run_notebooks)


def build_parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; the organism's own commands are loaded only when `wanted`."""
    parser = argparse.ArgumentParser(prog="course", description="Run, check and rebuild Under the Hood.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _run_parser(commands)
    again = commands.add_parser("report", help="write build/report.html again from the last run")
    again.add_argument("--output", metavar="DIR", help="folder of the run (default: build/ of the checkout)")
    again.set_defaults(func=write_report)
    pages = commands.add_parser("site", help="write the course as static pages, from the executed notebooks")
    pages.add_argument("--output", metavar="DIR", help="folder of a run (default: build/); the site goes to DIR/site")
    pages.set_defaults(func=write_site)
    health = commands.add_parser("doctor", help="is this machine ready? a fix beside every problem")
    health.add_argument("--json", action="store_true", help="print the findings as JSON")
    health.set_defaults(func=show_doctor)
    exercises.add_parsers(commands)
    instructors.add_parser(commands)
    saes.add_parsers(commands)
    prefetch.add_parser(commands)
    causality.add_parser(commands)
    grading.add_parser(commands)
    badges.add_parsers(commands)
    if wanted == "organism":
        from course_utils.organism import cli as organism_cli

        organism_cli.add_parser(commands)
    else:
        commands.add_parser("organism", help="rebuild, examine or sample the embedded model")
    commands.add_parser("version", help="print the version").set_defaults(func=show_version)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``course`` command.

    Parameters
    ----------
    argv
        Arguments without the program's name; None means those of this process.

    Returns
    -------
    int
        Exit code: 0 well, 1 something failed, 2 bad input, 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = build_parser(argv[0] if argv else None).parse_args(argv)
        return args.func(args)
    except CourseError as error:
        print(f"course: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("course: interrupted.", file=sys.stderr)
        return 130

