"""One module a notebook: its exercises, each with its reference answer, hints, cases, and known wrong answers.

A lesson too long for one module is split by subject: every module whose name begins with the one listed here
belongs to the notebook (``superposition.py``, ``superposition_geometry.py``). How to write an exercise is in
CONTRIBUTING.md.
"""

LESSONS = {"00": "start_here", "01": "language_model", "02": "superposition", "03": "sparse_autoencoders",
           "04": "training", "05": "neurons", "06": "reading", "07": "missing", "08": "steering", "09": "causality"}
