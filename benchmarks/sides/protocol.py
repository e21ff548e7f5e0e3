"""How a side is asked: one JSON object a line in, one a line out. Runs in every environment, so it imports nothing."""

import json
import os
import resource
import sys
import traceback


def serve(**functions):
    """Answer calls until there are no more; whatever a library prints goes to the log."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = {"result": functions[call["function"]](**call["arguments"])}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def peak_memory():
    """Return the most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions(*names):
    """Return the versions of installed distributions."""
    from importlib.metadata import version

    return {name: version(name) for name in names} | {"python": sys.version.split()[0]}
