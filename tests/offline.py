"""Run a command where there is no network at all: a namespace of its own without any interface, not even ``lo``.

``python tests/offline.py 00 04`` executes notebooks on the organism there, ``python tests/offline.py 00 --model gpt2``
on what ``COURSE_CACHE`` holds; numbers come first, and without one all are run. Kernels speak through sockets in files,
so they need no ``lo``. Linux only.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import takewhile


@cache
def prefix() -> list[str]:
    """Return what cuts a command off from the network: as root, else through a namespace of users as well."""
    said = ""
    for flags in ("-n", "-rn"):
        try:
            tried = subprocess.run(["unshare", flags, "true"], capture_output=True, text=True)
        except FileNotFoundError:
            raise OSError("there is no 'unshare' on this machine") from None
        if tried.returncode == 0:
            return ["unshare", flags]
        said = tried.stderr.strip()
    raise OSError(f"the kernel refuses ({said})")


def run(command: Sequence[str], **how) -> subprocess.CompletedProcess:
    """Run a command without a network; raises `OSError` where that cannot be had."""
    return subprocess.run([*prefix(), *command], **how)


if __name__ == "__main__":
    numbers = [*takewhile(str.isdecimal, sys.argv[1:])]
    others = sys.argv[1 + len(numbers) :]
    chosen = ["--notebook", *numbers] if numbers else []
    sys.exit(run([sys.executable, "-m", "course_utils.cli", "run", *others, *chosen]).returncode)
