"""The hub: whether it answers, where its files are kept, how long it is waited for, and whether what came is right.

A file that was fetched lies in the hub's cache under its digest: the SHA-256 of a large file, git's own of a small one.
`drop_spoilt` compares the two once for each file. Unpacked from `course prefetch`'s archive, files lie there without
digests in their names; the archive's manifest has been compared with them then.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from course_utils.errors import CourseError
from course_utils.paths import cache_dir, disk_full, prefetched, sha256

PATIENCE = 30.0  # seconds that the hub may ask to wait; its rate limits can ask for hours
OFFLINE = "use model='organism' or a local directory, or open it once while online: the download is kept"


def hub_error(timeout: float = 5.0) -> str | None:
    """Say why the hub cannot be reached, or None if it answers within ``timeout`` seconds."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answer: list[str | None] = [f"no answer within {timeout:g} s"]

    def knock() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=timeout)
            answer[0] = None
        except Exception as error:  # whatever the HTTP library raises, it means the same here
            answer[0] = type(error).__name__

    # A thread, because looking up a name can block for longer than any timeout that the library knows of.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(timeout)
    return answer[0]


def require_hub(what: str, instead: str = OFFLINE) -> None:
    """Raise a `CourseError` that says what to do if the hub, which ``what`` needs, cannot be reached."""
    reason = hub_error()
    if reason:
        raise CourseError(f"{what} needs the hub, which cannot be reached ({reason}); {instead}.")


def why(error: BaseException | None) -> str:
    """Say in a few words why a download failed."""
    said = type(error).__name__
    while error is not None:  # the hub's client wraps what happened, sometimes twice
        if isinstance(error, OSError) and disk_full(error):
            return "the disk is full"
        if status := getattr(getattr(error, "response", None), "status_code", None):
            return f"the hub answered {status}"
        error = error.__cause__
    return said


class _Clock:
    """The clock of the hub's client, which would sleep for as long as any answer asks it to."""

    def __getattr__(self, name: str) -> Any:
        """Be the module ``time`` in all else."""
        return getattr(time, name)

    def sleep(self, seconds: float | int) -> None:
        """Wait, but not for longer than anybody would."""
        if seconds > PATIENCE:
            raise CourseError(f"The hub is asked too often and wants {seconds:,.0f} s of rest; run this again then, "
                              "and it goes on from there.")
        time.sleep(seconds)


@contextlib.contextmanager
def hub_client(offline: bool = False) -> Iterator[None]:
    """Let the hub's client keep its files where the course does, and wait no longer than `PATIENCE`.

    Parameters
    ----------
    offline
        Let it use its cache only; without this it asks the hub about every file.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(_http, "time", _Clock()))
        if folder := prefetched():
            stack.enter_context(patch.object(constants, "HF_HUB_CACHE", str(folder / "hub")))
        if offline:
            stack.enter_context(patch.object(constants, "HF_HUB_OFFLINE", True))
        yield


def drop_spoilt(folder: Path) -> list[str]:
    """Remove from the hub's cache what is not what the hub has, so that it is fetched again.

    Parameters
    ----------
    folder
        A folder of the hub's cache, such as a snapshot.

    Returns
    -------
    list of str
        Names of the files that were removed. A file whose digest was right before is not read again.
    """
    dropped = []
    for file in sorted(folder.rglob("*")):
        blob = file.resolve()
        if file.is_symlink() and blob.is_file() and not _is_right(blob):
            file.unlink()
            blob.unlink()
            dropped.append(file.name)
    return dropped


def _is_right(blob: Path) -> bool:
    """Say whether a file has the digest that it is named by, reading it only if it changed since the last time."""
    about = blob.stat()
    seen, now = f"{about.st_size} {about.st_mtime_ns}", None
    with contextlib.suppress(OSError, CourseError):  # a cache that cannot be written: compared each time
        now = cache_dir() / "verified" / blob.name
        if now.is_file() and now.read_text() == seen:
            return True
    if not _matches(blob):
        return False
    with contextlib.suppress(OSError):
        if now:
            now.parent.mkdir(exist_ok=True)
            now.write_text(seen)
    return True


def _matches(blob: Path) -> bool:
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return sha256(blob) == blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        content = blob.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == blob.name
    return True  # a name of another kind, as some mirrors give
