"""Seconds until one can begin: ``import course_utils``, and a notebook's first cell (imports, and the model opened).

Each in a fresh interpreter, its own start included; the peer is ``import sae_lens``.

    python benchmarks/imports.py [--quick] [--rounds 5]
"""

import subprocess
import sys
import time

from harness import HERE, alternate, arguments, compare, peers_python, write

FIRST_CELL = "from course_utils import evaluate, harvest, open_lab, splice, train_sae; open_lab(quiet=True)"


def main():
    """Measure and write ``build/bench/imports.json``."""
    args = arguments(__doc__)
    peers = peers_python()

    def seconds(python, code):
        begun = time.perf_counter()
        subprocess.run([python, "-c", code], check=True, cwd=HERE.parent, capture_output=True)
        return time.perf_counter() - begun

    sides = {"import": lambda: seconds(sys.executable, "import course_utils"),
             "first cell": lambda: seconds(sys.executable, FIRST_CELL),
             "peer": lambda: seconds(peers, "import sae_lens")}
    alternate(1, **sides)  # fills the disk's cache
    found = alternate(args.rounds, **sides)
    write("imports", [compare("import course_utils / import sae_lens", found["import"], found["peer"]),
                      compare("first cell, model opened / import sae_lens", found["first cell"], found["peer"])],
          {}, args.threads)


if __name__ == "__main__":
    main()
