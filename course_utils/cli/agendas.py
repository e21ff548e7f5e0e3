"""Agendas for instructors: which sections and exercises in which slot, and the minutes that they take.

No minute is typed. Exercises bring theirs; what there is to read, and how long a notebook runs, is found in the
notebooks; ``docs/instructors/agendas.yaml`` only chooses. A section's minutes are those of its exercises, plus its
words at ``PACE``, plus ``LOOK`` for each picture, table or form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat
import yaml

from course_utils.cli import runner
from course_utils.errors import CourseError
from course_utils.exercises import find
from course_utils.exercises.source import stubs

PACE = 130  # words a minute: technical text, read slowly
LOOK = 0.5  # minutes for each picture, table or form. Both together meet the notebooks' own figures for reading.
_SHOWN = ("image/png", "text/html")
_RUN = re.compile(r"(half\s+a|one\s+or\s+two|one|two|three|\d+)(?:\s+minutes?)?\s+to\s+run\b")
_MINUTES = {"half a": 1, "one or two": 2, "one": 1, "two": 2, "three": 3}


class Section(NamedTuple):
    """One section of a notebook: its heading, what is to be read and seen in it, and its exercises."""

    heading: str
    words: int
    shown: int
    exercises: tuple[str, ...]

    @property
    def number(self) -> int:
        """Return the number before its heading; 0 where there is none (the beginning, *Recall*)."""
        found = re.match(r"(\d+) ·", self.heading)
        return int(found[1]) if found else 0

    @property
    def reading(self) -> int:
        """Return the minutes for its text and figures."""
        return math.ceil(self.words / PACE + self.shown * LOOK)


class Lesson(NamedTuple):
    """A notebook as an agenda sees it: its title, its file, its sections, the minutes that it runs."""

    title: str
    path: Path
    sections: tuple[Section, ...]
    run: int


def sections(notebook: nbformat.NotebookNode) -> tuple[Section, ...]:
    """Divide a notebook at its headings of the second rank; what stands before the first is called *Opening*."""
    found = [Section("Opening", 0, 0, ())]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = sum(any(kind in output.get("data", {}) for kind in _SHOWN) for output in cell.outputs)
            last = found[-1]
            ids = (*last.exercises, *(id for id, _ in stubs(cell.source)))
            found[-1] = last._replace(shown=last.shown + shown, exercises=ids)
        elif not {"hints", "footer"} & set(cell.metadata.get("tags", [])):
            first, *parts = re.split(r"^## +(.*)$", cell.source, flags=re.M)
            found[-1] = found[-1]._replace(words=found[-1].words + len(first.split()))
            found += [Section(head.strip(), len(text.split()), 0, ())
                      for head, text in zip(parts[::2], parts[1::2], strict=True)]
    return tuple(found)


def lessons() -> dict[str, Lesson]:
    """Return every notebook by its number.

    Raises
    ------
    CourseError
        If a notebook's first cell does not say how long it runs.
    """
    found = {}
    for path in runner.find():
        notebook = nbformat.read(path, as_version=4)
        said = _RUN.search(notebook.cells[0].source)
        if said is None:
            raise CourseError(f"{path.name} does not say in its first cell how long it runs: '… 2 to run'.")
        word = " ".join(said[1].split())
        found[path.name[:2]] = Lesson(runner.title_of(notebook, path.stem), path, sections(notebook),
                                      _MINUTES.get(word) or int(word))
    return found


class Row(NamedTuple):
    """A line of an agenda: what is done, and the minutes for reading (or running) and for exercises."""

    what: str
    reading: int
    exercises: tuple[str, ...]

    @property
    def minutes(self) -> int:
        """Return the minutes of all of it."""
        return self.reading + sum(find(id).minutes for id in self.exercises)


def rows(part: dict, lesson: Lesson) -> Iterator[Row]:
    """Yield the lines of one part of a slot.

    Parameters
    ----------
    part
        ``sections``: numbers, by default all that hold one of the exercises, or all if none is named either;
        ``exercises``: ids, by default those of the sections; ``home``: ids that are done at home instead.
    lesson
        The notebook that the part is about.

    Raises
    ------
    CourseError
        If the notebook has no such section or exercise.
    """
    there = {id for section in lesson.sections for id in section.exercises}
    asked, numbers = part.get("exercises"), part.get("sections")
    for name, wanted, known in (("exercises", [*(asked or []), *part.get("home", [])], there),
                                ("sections", numbers or [], {section.number for section in lesson.sections})):
        if missing := [one for one in wanted if one not in known]:
            raise CourseError(f"{name}={missing} of an agenda: {lesson.path.name} has no such {name}.")
    yield Row(f"**{lesson.title}**: open it, run its first cells", lesson.run, ())
    for section in lesson.sections:
        if numbers is None:
            chosen = not asked or set(asked) & set(section.exercises)
        else:
            chosen = section.number in numbers and section.number
        ids = tuple(id for id in section.exercises if (asked is None or id in asked) and id not in part.get("home", []))
        if chosen and section.reading + len(ids):
            yield Row(section.heading, section.reading, ids)


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def _slot(slot: dict, known: dict[str, Lesson]) -> Iterator[str]:
    yield f"\n### {slot['title']} · {slot['minutes']} min\n"
    yield "| from | what | read, look, run | exercises | min |\n| ---: | --- | ---: | --- | ---: |"
    clock, home, missing = 0, [], []
    for part in slot.get("parts", []):
        if part["notebook"] not in known:  # the course is in the making
            missing.append(part["notebook"])
            continue
        for row in rows(part, known[part["notebook"]]):
            yield f"| {_clock(clock)} | {row.what} | {row.reading} | {_named(row.exercises)} | {row.minutes} |"
            clock += row.minutes
        home += part.get("home", [])
    if clock > slot["minutes"]:
        raise CourseError(f"{slot['title']!r} takes {clock} minutes; its slot has {slot['minutes']}.")
    yield f"| {_clock(clock)} | {slot['rest']} | | | {slot['minutes'] - clock} |"
    if home:
        yield f"\nAt home: {_named(home)}, {sum(find(id).minutes for id in home)} min."
    if missing:
        yield f"\nStill to come, and not counted: notebook {', '.join(missing)}."


def _named(ids: Sequence[str]) -> str:
    return ", ".join(f"{id} {'★' * find(id).stars} {find(id).minutes}" for id in ids)


def page(choice: Path) -> str:
    """Return the page of agendas, from the file that chooses what is in them."""
    known = lessons()
    lines = [f"""# Agendas

Three ways to teach the course, and at the end every section with its minutes, so that you can make a fourth: edit
[agendas.yaml](agendas.yaml), then run `course instructors`. The length of a slot is chosen; every other minute is
computed. Exercises bring theirs (00.1 ★ 4: number, stars, minutes); a text is counted at {PACE} words a minute, each
picture, table or form at {LOOK:g} min, and a notebook runs as long as its first cell says. Your group will be faster or
slower by much the same factor throughout: time it on notebook 00."""]
    for agenda in yaml.safe_load(choice.read_text(encoding="utf-8")):
        total = sum(slot["minutes"] for slot in agenda["slots"])
        lines.append(f"\n## {agenda['title']} · {_clock(total)} h in class\n\n{agenda['about'].strip()}")
        for slot in agenda["slots"]:
            lines += _slot(slot, known)
    lines.append("\n## Every section\n\n| section | read, look | exercises | min |\n| --- | ---: | --- | ---: |")
    for lesson in known.values():
        all_ = [Row(section.heading, section.reading, section.exercises) for section in lesson.sections]
        lines.append(f"| **[{lesson.title}](../../notebooks/{lesson.path.name})**, {lesson.run} min to run "
                     f"| {sum(row.reading for row in all_)} | | {sum(row.minutes for row in all_) + lesson.run} |")
        lines += [f"| {row.what} | {row.reading} | {_named(row.exercises)} | {row.minutes} |" for row in all_]
    return "\n".join(lines) + "\n"
