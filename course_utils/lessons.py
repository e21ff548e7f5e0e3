"""What differs between models in a lesson: sizes and concepts, read from ``data/lessons.yaml``."""

from __future__ import annotations

from types import SimpleNamespace

from course_utils.errors import one_of
from course_utils.lab import Lab
from course_utils.paths import checked

SMALL = 20_000_000  # weights up to which a model counts as small: seconds instead of minutes on a CPU


def lesson(notebook: str, lab: Lab) -> SimpleNamespace:
    """Return a notebook's sizes and concept for the opened model.

    Parameters
    ----------
    notebook
        Its two digits, e.g. ``"04"``.
    lab
        The opened model: its size, device and kind of text decide.

    Raises
    ------
    CourseError
        If no lesson has that number.
    """
    import yaml

    lessons = yaml.safe_load(checked("lessons.yaml").read_text(encoding="utf-8"))
    if notebook not in lessons:
        raise one_of("notebook", notebook, lessons)
    size = "small" if lab.n_params <= SMALL else "large" if lab.device.type == "cpu" else "gpu"
    concept = lessons[notebook]["concept"]["world" if lab.world is not None else "words"]
    return SimpleNamespace(**lessons[notebook]["size"][size], concept=concept)
