"""Run the notebooks headless, each in a kernel (a process) of its own, and record how each one went.

1. find the notebooks that were asked for; 2. execute each until its end, an error or its time limit; 3. keep
the executed copy, whole or not; 4. go on with the next, whatever happened; 5. write ``run.json``.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import nbformat
from tqdm import tqdm

from course_utils import paths
from course_utils.cli.kernels import Execution, Failure, drop_bars
from course_utils.errors import CourseError

MIB = 2**20


class Outcome(NamedTuple):
    """How one notebook went.

    `status` is ``passed`` or ``failed``, `peak_mb` the kernel's peak memory in MiB, `cells` the number of
    code cells that were started.
    """

    notebook: str
    title: str
    status: str
    seconds: float
    peak_mb: float | None
    cells: int
    failure: Failure | None


class Settings(NamedTuple):
    """What every notebook of a run is given.

    `build` is the folder for all that the run writes, `model` and `text` what ``open_lab`` opens, `timeout`
    the seconds for each notebook, `jobs` how many run at a time (two torch jobs slow each other down).
    """

    build: Path
    model: str = "organism"
    text: str | None = None
    timeout: float = 600.0
    jobs: int = 1


def notebooks_dir() -> Path:
    """Return the checkout's ``notebooks/``: the nearest above this folder, else the one beside the package.

    Raises
    ------
    CourseError
        If there is neither, as after an installation from a wheel.
    """
    for folder in (Path.cwd(), *Path.cwd().parents, paths.DATA.parent):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder / "notebooks"
    raise CourseError("There is no notebooks/ here or above: run this inside a checkout of the course.")


def find(wanted: Iterable[str] = ()) -> list[Path]:
    """Return the notebooks with these numbers (``"4"``, ``"04"`` or a file name), or all of them, in order.

    Raises
    ------
    CourseError
        If there is none with that number; it lists what there is.
    """
    there = {path.name[:2]: path for path in sorted(notebooks_dir().glob("[0-9][0-9]_*.ipynb"))}
    if not there:
        raise CourseError(f"There is no notebook called like 04_something.ipynb in {notebooks_dir()}.")
    chosen = set()
    for name in wanted:
        number = Path(name).name.split("_")[0].removesuffix(".ipynb").zfill(2)
        if number not in there:
            listed = ", ".join(path.stem for path in there.values())
            raise CourseError(f"notebook={name!r} is not known; there are: {listed}.")
        chosen.add(number)
    return [path for number, path in there.items() if number in chosen or not chosen]


def title_of(notebook: nbformat.NotebookNode, otherwise: str) -> str:
    """Return the notebook's first heading, without its marks.

    Examples
    --------
    >>> import nbformat
    >>> title_of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# The *first*")]), "none")
    'The *first*'
    """
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return next((ln.lstrip("# ").strip() for ln in text.splitlines() if ln.startswith("#")), otherwise)


def _environment(path: Path, settings: Settings) -> dict[str, str]:
    # A plotting backend set from outside would leave the figures out of the notebook.
    env = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "COURSE_TEXT")}
    env |= {"COURSE_TEXT": settings.text} if settings.text else {}
    # A run is nobody's work: it neither shows nor changes a student's predictions and progress.
    return env | {"COURSE_MODEL": settings.model, "COURSE_BUILD": str(settings.build),
                  "COURSE_NOTEBOOK": path.name[:2], "COURSE_PROGRESS": "off"}


class _Run:
    """All notebooks of one run: what is running now, and the bar that counts their cells."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self.settings, self.scratch = settings, scratch
        self.running: list[Execution] = []
        self.notebooks: dict[Path, nbformat.NotebookNode] = {}
        self.broken: dict[Path, Failure] = {}

    def read(self, path: Path) -> int:
        """Read a notebook and return how many cells will be executed."""
        try:
            self.notebooks[path] = nbformat.read(path, as_version=4)
        except Exception as error:  # nbformat raises whatever JSON and its schema checker raise
            self.broken[path] = Failure(0, "", f"not a notebook that can be read: {error}".split("\n")[0])
            return 0
        code = [cell for cell in self.notebooks[path].cells if cell.cell_type == "code"]
        for cell in code:  # what an earlier run left would pass for this one's after a failure
            cell.outputs, cell.execution_count = [], None
        return sum(bool(cell.source.strip()) for cell in code)

    def one(self, path: Path, bar: tqdm) -> Outcome:
        """Execute one notebook."""
        if path in self.broken:
            return Outcome(path.stem, path.stem, "failed", 0.0, None, 0, self.broken[path])
        notebook, settings = self.notebooks[path], self.settings
        title, begun = title_of(notebook, path.stem), time.monotonic()
        bar.set_description(path.stem[:24])
        job = Execution(notebook, path.parent, settings.timeout, bar.update)
        self.running.append(job)
        failure = job.run(_environment(path, settings), self.scratch / f"{path.name[:2]}.json")
        self.running.remove(job)
        drop_bars(notebook)
        paths.write_text(settings.build / "notebooks" / path.name, nbformat.writes(notebook).rstrip("\n") + "\n")
        seconds, peak = round(time.monotonic() - begun, 2), round(job.peak / MIB, 1) or None
        return Outcome(path.stem, title, "failed" if failure else "passed", seconds, peak, job.cell, failure)


def execute(notebooks: list[Path], settings: Settings) -> list[Outcome]:
    """Execute notebooks and keep the executed copies in ``<build>/notebooks/``.

    Parameters
    ----------
    notebooks
        Files, as `find` returns them.
    settings
        What each of them is given.

    Returns
    -------
    list of Outcome
        In the order of `notebooks`.

    Raises
    ------
    KeyboardInterrupt
        After every kernel has been killed.
    """
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(max_workers=settings.jobs) as pool:
        run = _Run(settings, Path(scratch))
        with tqdm(total=sum(map(run.read, notebooks)), unit="cell", desc="notebooks") as bar:
            futures = {pool.submit(run.one, path, bar): path for path in notebooks}
            try:
                done = {futures[future]: future.result() for future in as_completed(futures)}
            except BaseException:
                for future in futures:
                    future.cancel()
                for job in list(run.running):
                    job.stop()
                raise
    return [done[path] for path in notebooks]


def record(outcomes: list[Outcome], build: Path, **about: object) -> Path:
    """Write ``<build>/run.json``: `about` (what was run, and on what) and every notebook's outcome."""
    rows = [o._asdict() | {"failure": o.failure._asdict() if o.failure else None} for o in outcomes]
    paths.write_text(build / "run.json", json.dumps(about | {"notebooks": rows}, indent=1) + "\n")
    return build / "run.json"
