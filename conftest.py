"""For every test, and every notebook that pytest executes: nobody's progress is read or written."""

import os

os.environ["COURSE_PROGRESS"] = "off"
