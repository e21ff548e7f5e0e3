"""``course instructors``: the pages of ``docs/`` that are made of the course's own data, written anew.

Agendas come from exercises and notebooks, wrong answers from the engine, discussion keys from ``data/claims.yaml``,
``data/discussion.yaml`` and the verdicts of the executed notebooks, the page of failures from the doctor, the
glossary's places from the notebooks. A test holds the committed pages against what is made here.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError
from course_utils.paths import write_text

KINDS = {"press": "press", "paper": "literature"}
_CARD = re.compile(r"^(C\d\d) \S (.+)$", re.M)
_LINE = re.compile(r"^(Statistic|Measured) +(.+)$", re.M)


def _cell(text: str) -> str:
    """Return a text as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def wrong_answers() -> str:
    """Return the page of wrong answers: what each mistake is called, and what to say to who makes it."""
    from course_utils.exercises import everything

    all_ = everything()
    lines = [f"""# Wrong answers, and what to say

{sum(len(ex.wrongs) for ex in all_)} mistakes in {len(all_)} exercises. Each is known to the notebook, which names it
and says the right-hand column by itself; a test proves that each is rejected. So by the time somebody raises a hand,
the text has been read and has not helped. Ask the question first, let the answer be explained to you, and say the rest
in your own words. What is rejected without a name is new: please [add it](add_an_exercise.md).

## Mistakes that come back
"""]
    named = defaultdict(list)
    for ex in all_:
        for wrong in ex.wrongs:
            named[wrong.name].append(ex.id)
    lines += [f"* *{name}*: {', '.join(ids)}" for name, ids in sorted(named.items()) if len(ids) > 1]
    for ex in all_:
        lines.append(f"\n## {ex.id} · {ex.title} · {'★' * ex.stars} · {ex.minutes} min\n\n"
                     f"Ask first: {' '.join(ex.hints[0].split())}\n\n| the mistake | what to say |\n| --- | --- |")
        lines += [f"| {_cell(wrong.name)} | {_cell(wrong.text)} |" for wrong in ex.wrongs]
    return "\n".join(lines) + "\n"


def verdicts() -> dict[str, list[str]]:
    """Return what the committed notebooks found: claim → a line for each card in their outputs."""
    import nbformat

    from course_utils.cli import runner

    found = defaultdict(list)
    for path in runner.find():
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                card = output.get("data", {}).get("text/plain", "")
                if head := _CARD.match(card):
                    said = dict(_LINE.findall(card))
                    found[head[1]].append(f"**{head[2]}**: {said['Statistic']}, {said['Measured']}. "
                                          f"[Notebook {path.name[:2]}](../../notebooks/{path.name})")
    return found


def arguments() -> dict[str, dict[str, str]]:
    """Return ``data/discussion.yaml``: claim → ``ask``, ``defence``, ``prosecution``.

    Raises
    ------
    CourseError
        If a claim or a key is missing, or there is one too many.
    """
    import yaml

    from course_utils import paths
    from course_utils.evidence import claims

    table: dict[str, Any] = yaml.safe_load(paths.checked("discussion.yaml").read_text(encoding="utf-8"))
    wrong = set(table) ^ set(claims()) | {id for id in table if set(table[id]) != {"ask", "defence", "prosecution"}}
    if wrong:
        raise CourseError(f"data/discussion.yaml: {', '.join(sorted(wrong))} must be a claim with ask, defence and "
                          "prosecution.")
    return table


def discussion() -> str:
    """Return the page of discussion keys, claim by claim."""
    from course_utils.evidence import claims

    found, both = verdicts(), arguments()
    lines = ["""# Discussion keys

For each claim: a question to begin with, both sides at their best, what would count (fixed before anybody measured),
the nulls, others' numbers, and what our notebooks found on the organism. Let two groups prepare the two sides *before*
the notebook runs, and let each say which result would change its mind. A verdict is about one model and one statistic;
the strongest objection belongs to it."""]
    for claim in claims().values():
        lines += _claim(claim, both[claim.id], found[claim.id])
    return "\n".join(lines) + "\n"


def _claim(claim: Any, sides: dict[str, str], found: list[str]) -> Iterator[str]:
    yield f"\n## {claim.id} · {claim.text}\n"
    yield f"* **Who says so** [{', '.join(KINDS[kind] for kind in claim.source)}]: {claim.says}"
    yield f"* **Begin with**: {' '.join(sides['ask'].split())}"
    yield f"* **The defence**: {' '.join(sides['defence'].split())}"
    yield f"* **The prosecution**: {' '.join(sides['prosecution'].split())}"
    yield f"* **Counts for it**: {claim.counts_for}\n* **Counts against it**: {claim.counts_against}"
    yield f"* **Statistic**: {claim.statistic}. **Nulls**: {', '.join(claim.nulls)}"
    for row in claim.published:
        yield f"* **Others' number**: {row.number}, {row.what} ({row.cite}; read in: {row.read})"
    yield from (f"* **We found** {line}" for line in found)
    yield f"* **Strongest objection**: {claim.objection}"
    if claim.correction:
        yield f"* **Correct on the way**: {claim.correction}"


def failures() -> str:
    """Return the page behind every notebook's last cell: symptoms and what mends them."""
    from course_utils.cli import doctor

    return f"""# If this fails

A cell that stops with `ExerciseError` is no failure: it is the course speaking about your answer. `hint("04.3")`
helps, `reveal("04.3")` shows the answer, `course reset 04.3` makes the exercise empty again. `CourseError` is one
sentence that says what was given and what is allowed. For anything else, run `course doctor` in a terminal; it finds
out which of these it is.

{doctor.table()}

Still stuck? *Kernel → Restart Kernel and Run All Cells* rules out cells that were run in another order.
"""


def pages() -> dict[str, str]:
    """Return every generated page: path below the checkout → text."""
    from course_utils.cli import agendas, glossary, runner

    docs = runner.notebooks_dir().parent / "docs"
    return {"docs/instructors/agendas.md": agendas.page(docs / "instructors" / "agendas.yaml"),
            "docs/instructors/wrong_answers.md": wrong_answers(),
            "docs/instructors/discussion.md": discussion(),
            "docs/if_this_fails.md": failures(),
            "docs/glossary.md": glossary.renewed((docs / "glossary.md").read_text(encoding="utf-8"))}


def write(_: argparse.Namespace) -> int:
    """Write the generated pages that have changed."""
    from course_utils.cli import runner

    root = runner.notebooks_dir().parent
    for name, text in pages().items():
        path: Path = root / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            print(f"{name}: written")
    return 0


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("instructors", help="write the generated pages of docs/ anew")
    parser.set_defaults(func=write)
