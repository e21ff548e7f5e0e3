"""The report of a run: one HTML file that needs no network, no other file and, to be read, no script.

It is put together from what the run left in ``build/``: ``run.json`` (how each notebook went),
``ledger.json`` (the verdicts) and the executed notebooks (their headline figures). Each may be missing.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import nbformat
from markupsafe import Markup

from course_utils.evidence import Ledger, claims
from course_utils.paths import write_text

TONES = {"holds": "good", "does not hold": "bad", "holds in part": "part"}
ABOUT = ("date", "model", "text", "machine", "versions", "time")  # of run.json, shown on the cover
_WIDTH, _EDGE = 160, 8  # of an interval's picture, in pixels


class Figure(NamedTuple):
    """A picture of an executed notebook: a ``data:`` address, what it shows in words, and where it stands."""

    source: str
    alt: str
    caption: str


def number(value: object, digits: int = 3) -> str:
    """Write a number for a reader; what is no finite number becomes a dash.

    Examples
    --------
    >>> number(0.123456), number(41250), number(None), number(float("nan"))
    ('0.123', '41,250', '–', '–')
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if value and (abs(value) >= 10**6 or abs(value) < 10**-3) and not isinstance(value, int):
        return f"{value:.{digits - 1}e}"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.{digits}g}"


def finite(values: Iterable[object]) -> list[float]:
    """Keep the finite numbers among `values`."""
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def null_ranges(row: dict[str, Any]) -> dict[str, list[float]]:
    """Return a row's nulls as name → value, low, high; one that is no finite number is left out."""
    nulls = row.get("nulls")
    named = nulls.items() if isinstance(nulls, dict) else []
    ranges = {}
    for name, null in named:
        three = [null.get(k) for k in ("value", "low", "high")] if isinstance(null, dict) else [null] * 3
        ranges |= {name: finite(three)} if len(finite(three)) == 3 else {}
    return ranges


def bar(row: dict[str, Any]) -> dict[str, Any] | None:
    """Place a row's value, interval, nulls and zero on a picture, in pixels; None if there is no value."""
    if not finite([row.get("value")]):
        return None
    value = float(row["value"])
    low, high = ((finite([row.get(end)]) or [value])[0] for end in ("low", "high"))
    nulls = list(null_ranges(row).values())
    marks = [value, low, high, *(x for null in nulls for x in null)]
    # Zero is worth a place when it is near; a perplexity of 400 ± 2 would shrink to a dot beside it.
    near = min(map(abs, marks)) <= 2 * (max(marks) - min(marks))
    marks += [0.0] if near else []
    left, scale = min(marks), (_WIDTH - 2 * _EDGE) / ((max(marks) - min(marks)) or 1.0)

    def at(x: float) -> float:
        return round(_EDGE + (x - left) * scale, 1)

    return {"value": at(value), "low": at(low), "high": at(high), "nulls": [list(map(at, n)) for n in nulls],
            "zero": at(0.0) if near else None, "label": f"{interval(row)}; nulls: {nulls_text(row)}"}


def interval(row: dict[str, Any]) -> str:
    """Write a row's value with its interval: ``0.71 [0.65, 0.77]``."""
    ends = f" [{number(row.get('low'))}, {number(row.get('high'))}]" if finite([row.get("low")]) else ""
    return number(row.get("value")) + ends


def nulls_text(row: dict[str, Any]) -> str:
    """Write a row's nulls in one line, each with the p-value that it was rejected or kept by."""
    texts = []
    for name, (value, _, _) in null_ranges(row).items():
        null = row["nulls"][name]
        p = finite([null.get("p")]) if isinstance(null, dict) else []
        rejected = ("< 0.001" if p[0] < 0.001 else f"= {number(p[0], 2)}") if p else ""
        texts.append(f"{name} {number(value)}" + (f" (p {rejected})" if p else ""))
    return ", ".join(texts) or "none"


def ledger_rows(build: Path) -> list[dict[str, Any]]:
    """Return the ledger of `build` with everything that the page shows of each row."""
    file, sentences = build / "ledger.json", claims()
    shown = []
    for row in Ledger(file).rows() if file.is_file() else []:
        claim = sentences.get(row["id"])
        about = {"claim": claim.text if claim else "", "tone": TONES.get(row.get("verdict"), "soft"),
                 "reason": row.get("reason", ""), "model": Path(str(row["model"])).name}
        texts = {"text": interval(row), "nulls": nulls_text(row), "n": number(row.get("n")),
                 "seconds": number(row.get("seconds")), "sort": row.get("value"), "bar": bar(row)}
        shown.append(row | about | texts)
    return shown


def _images(notebook: nbformat.NotebookNode, stem: str) -> Iterator[tuple[bool, Figure]]:
    """Yield every picture, and whether its cell is tagged ``headline``."""
    for index, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            about = output.get("metadata", {})
            for kind in ("image/png", "image/jpeg"):
                if kind in output.get("data", {}):
                    own = about.get(kind, {}).get("alt") or about.get("alt") or cell.metadata.get("alt")
                    count = cell.get("execution_count") or index
                    alt = own or f"Figure of notebook {stem}, cell [{count}], described there"
                    source = f"data:{kind};base64,{''.join(output['data'][kind].split())}"
                    marked = "headline" in cell.metadata.get("tags", [])
                    yield marked, Figure(source, alt, own or f"Cell [{count}]")


def figures(path: Path) -> list[Figure]:
    """Return an executed notebook's figures of the cells tagged ``headline``, else its first one."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception:  # missing or unreadable; the notebook's row says so, and the page must still be made
        return []
    found = list(_images(notebook, path.stem))
    return [figure for marked, figure in found if marked] or [figure for _, figure in found[:1]]


def notebook_rows(run: dict[str, Any], build: Path) -> list[dict[str, Any]]:
    """Return the notebooks of a run with everything that the page shows of each."""
    rows = []
    for row in run.get("notebooks", []):
        facts = [f"{number(round(row['seconds'], 1))} s", f"{row['cells']} cells"]
        facts += [f"{number(round(row['peak_mb']))} MiB at most"] if row.get("peak_mb") else []
        copy = build / "notebooks" / f"{row['notebook']}.ipynb"
        rows.append(row | {"facts": ", ".join(facts), "figures": figures(copy)})
    return rows


def summary(rows: list[dict[str, Any]], books: list[dict[str, Any]]) -> str:
    """Say in one line how the notebooks went and how many verdicts there are."""
    failed = [book["notebook"] for book in books if book["status"] != "passed"]
    went = f"{len(books) - len(failed)} of {len(books)} notebooks ran to their end"
    went += f" (not: {', '.join(failed)})" if failed else ""
    tried = f"{len(rows)} verdicts on {len({row['id'] for row in rows})} claims" if rows else "no verdict yet"
    return f"{went if books else 'No notebook ran'}; the ledger holds {tried}."


def tally(rows: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """Count the verdicts: verdict, how often, and its tone; the most frequent first."""
    counts = Counter((str(row.get("verdict")), row["tone"]) for row in rows)
    return [(verdict, n, tone) for (verdict, tone), n in counts.most_common()]


def make(build: Path) -> Path:
    """Write ``<build>/report.html`` from what lies in `build`.

    Parameters
    ----------
    build
        Folder of a run, as ``course run`` fills it.

    Returns
    -------
    Path
        The page.
    """
    file = build / "run.json"
    run = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    rows, books = ledger_rows(build), notebook_rows(run, build)
    about = [(name, run[name]) for name in ABOUT if run.get(name)]
    template, look = (Path(__file__).with_name(name).read_text(encoding="utf-8")
                      for name in ("report.html.jinja", "look.css"))
    pages = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = pages.from_string(template).render(
        look=Markup(look), summary=summary(rows, books), tally=tally(rows), about=about, rows=rows, notebooks=books)
    write_text(build / "report.html", page)
    return build / "report.html"
