"""For every test, and every notebook that pytest executes: nobody's progress is read or written; notebooks come first.

A notebook takes minutes and a file of tests seconds: with the former last, one process would wait for the other.
"""

import os

os.environ["COURSE_PROGRESS"] = "off"


def pytest_configure(config) -> None:
    """Keep pytest-xdist from putting the files with the most tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list) -> None:
    """Put notebooks first."""
    items.sort(key=lambda item: item.path.suffix != ".ipynb")
