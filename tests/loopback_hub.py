"""A Hugging Face hub in a thread: what the real clients ask of the real one, over HTTP, with faults on request.

Only storage by Xet is left out: the hub then answers as for clients that do not speak it. Point clients to it with
``HF_ENDPOINT=hub.url``, in a process of their own, because huggingface_hub reads that when it is imported::

    hub.add("datasets/someone/text", {"data/train-00000-of-00001.parquet": blob})
    hub.fault = lambda request: Fault(cut=1000) if request.path.endswith(".parquet") else None

Paths and headers are those that huggingface_hub sends and reads. Large files are redirected to a "CDN", which is this
server under its other name, because clients treat a redirect to another host differently.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

LFS = re.compile(r"\.(safetensors|parquet|bin|npz|h5|tar)$")
DAY = "2024-01-01T00:00:00.000Z"


class Request(NamedTuple):
    """What a client asked for."""

    method: str
    path: str  # unquoted, without query; on the CDN: /cdn/<repository>/<commit>/<file>
    range: str | None
    number: int  # how often this method and path were asked before


class Fault(NamedTuple):
    """What goes wrong with an answer: its status, its body, or its time."""

    status: int | None = None  # instead of the answer, e.g. 404, 429, 500
    cut: int | None = None  # close the connection after so many bytes of the body
    pause: float = 0.0  # seconds before it is closed
    slow: float = 0.0  # seconds before the first byte
    wrong: bool = False  # every byte of the body is another, at the right length
    headers: Mapping[str, str] = {}  # e.g. {"Retry-After": "1"}


@dataclass
class Repository:
    """One revision's files."""

    files: dict[str, bytes]

    @cached_property
    def commit(self) -> str:
        listing = json.dumps({path: sha256(blob) for path, blob in sorted(self.files.items())})
        return hashlib.sha1(listing.encode()).hexdigest()

    def entry(self, path: str) -> dict:
        """Describe a file or a folder as the tree does."""
        if path not in self.files:
            return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
        blob = self.files[path]
        lfs = {"lfs": {"oid": sha256(blob), "size": len(blob), "pointerSize": 130}} if LFS.search(path) else {}
        return {"type": "file", "path": path, "size": len(blob), "oid": git_oid(blob)} | lfs

    def tree(self, folder: str, recursive: bool) -> list[dict]:
        start = f"{folder}/" if folder else ""
        inside = [path.removeprefix(start) for path in self.files if path.startswith(start)]
        names = {name for path in inside for name in parents(path)} if recursive else {p.split("/")[0] for p in inside}
        return [self.entry(start + name) for name in sorted(names)]


@dataclass
class Hub:
    """The server, what it holds, and what it was asked."""

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)  # old repository → new one
    fault: Callable[[Request], Fault | None] = lambda request: None
    log: list[tuple[Request, int, int]] = field(default_factory=list)  # request, status, bytes of the body sent
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn(self) -> str:
        return f"http://localhost:{self.port}/cdn"

    def add(self, repository: str, files: Mapping[str, bytes], revision: str = "main") -> None:
        """Hold a revision of ``"owner/model"`` or ``"datasets/owner/set"``."""
        self.repositories[repository, revision] = Repository(dict(files))

    def find(self, repository: str, revision: str) -> Repository | None:
        of_name = {rev: repo for (name, rev), repo in self.repositories.items() if name == repository}
        return of_name.get(revision) or {repo.commit: repo for repo in of_name.values()}.get(revision)

    def served(self, part: str = "") -> int:
        """Count the bytes of bodies sent for paths that contain ``part``."""
        return sum(sent for request, _, sent in self.log if part in request.path)

    def size(self, repository: str) -> int:
        return sum(len(blob) for (name, _), repo in self.repositories.items() if name == repository
                   for blob in repo.files.values())

    def forget(self) -> None:
        """Start counting anew, without faults."""
        self.log.clear()
        self.fault = lambda request: None


@contextmanager
def running() -> Iterator[Hub]:
    """Run a hub as long as the block lasts."""
    hub = Hub()
    with Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub})) as server:
        server.daemon_threads = True
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class Server(ThreadingHTTPServer):
    """Says nothing when a client hangs up, as one that is killed does."""

    def handle_error(self, *address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*address)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        before = [request[:2] for request, *_ in self.hub.log].count((self.command, path))
        self.asked = Request(self.command, path, self.headers.get("Range"), before)
        self.fault = self.hub.fault(self.asked) or Fault()
        form = self.form()  # read in any case, or it would be taken for the next request
        time.sleep(self.fault.slow)
        if self.fault.status is not None:
            self.answer(self.fault.status, b"{}", **self.fault.headers)
            return
        # Split before unquoting, because a revision may hold a slash.
        parts = [urllib.parse.unquote(part) for part in url.path.strip("/").split("/")]
        query = dict(urllib.parse.parse_qsl(url.query))
        if parts == [""]:
            self.answer(200, b"a hub")
        elif parts[0] == "api":
            self.api(*located(parts[1:]), query, form)
        else:
            self.file(*located(parts))

    do_HEAD = do_POST = do_GET

    def form(self) -> dict[str, list[str]]:
        """Read a request's body: JSON, or a form."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return json.loads(body) if body[:1] == b"{" else urllib.parse.parse_qs(body.decode())

    def held(self, repository: str, revision: str) -> Repository | None:
        """Find a revision, or answer that it is not here."""
        known = {name for name, _ in self.hub.repositories}
        found = self.hub.find(repository, revision)
        if repository in self.hub.moved:
            new = re.sub(rf"/{repository}(?=[/?]|$)", f"/{self.hub.moved[repository]}", self.path, count=1)
            self.answer(307, b"", Location=new)
        elif repository not in known:  # the real hub does not tell whether it is missing or private
            self.answer(401, b"{}", **{"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid credentials."})
        elif found is None:
            self.answer(404, b"{}", **{"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        return found

    def api(self, repository: str, what: str, revision: str, path: str, query: dict, form: dict) -> None:
        found = self.held(repository, revision)
        if found is None:
            return
        if what in ("", "revision"):
            about = {"id": repository.removeprefix("datasets/"), "sha": found.commit, "private": False, "gated": False,
                     "disabled": False, "tags": [], "downloads": 0, "likes": 0, "lastModified": DAY, "createdAt": DAY,
                     "siblings": [{"rfilename": name} for name in sorted(found.files)]}
            self.answer(200, json.dumps(about).encode())
            return
        if what == "tree":
            entries = found.tree(path, query.get("recursive", "").lower() == "true")
        else:
            entries = [entry for entry in found.tree("", True) if entry["path"] in form.get("paths", [])]
        if path and not entries:
            self.answer(404, b"{}", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found.commit})
        else:
            self.answer(200, json.dumps(entries).encode())

    def file(self, repository: str, what: str, revision: str, path: str) -> None:
        found = self.held(repository, revision)
        if found is None:
            return
        commit = {"X-Repo-Commit": found.commit}
        if path not in found.files:
            self.answer(404, b"{}", **commit, **{"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        blob = found.files[path]
        if what == "resolve" and LFS.search(path):
            headers = {"X-Linked-Etag": f'"{sha256(blob)}"', "X-Linked-Size": str(len(blob)), **commit}
            self.answer(302, b"", Location=f"{self.hub.cdn}/{repository}/{found.commit}/{path}", **headers)
        else:
            self.body(blob, ETag=f'"{sha256(blob) if LFS.search(path) else git_oid(blob)}"', **commit)

    def body(self, blob: bytes, **headers: str) -> None:
        """Answer with a file, or the range of it that was asked for."""
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.asked.range or "")
        if wanted is None:
            self.answer(200, blob, **headers)
            return
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(blob) - int(last))
        end = min(int(last) + 1, len(blob)) if first and last else len(blob)
        if start >= len(blob):
            self.answer(416, b"", **{"Content-Range": f"bytes */{len(blob)}"})
        else:
            self.answer(206, blob[start:end], **{"Content-Range": f"bytes {start}-{end - 1}/{len(blob)}"}, **headers)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send an answer, spoilt as the fault says, and write it into the log."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            body = b""
        if self.fault.wrong:
            body = body.translate(bytes(range(255, -1, -1)))
        sent = body[: self.fault.cut]
        self.hub.log.append((self.asked, status, len(sent)))
        self.wfile.write(sent)
        if len(sent) < len(body):
            self.wfile.flush()
            time.sleep(self.fault.pause)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def located(parts: list[str]) -> tuple[str, str, str, str]:
    """Take a path apart: repository, what is asked of it, revision, path in it."""
    if parts[0] == "cdn":
        n = 3 if parts[1] == "datasets" else 2
        return "/".join(parts[1 : 1 + n]), "cdn", parts[1 + n], "/".join(parts[2 + n :])
    parts = parts[1:] if parts[0] == "models" else parts
    what = next((p for p in parts if p in ("resolve", "revision", "tree", "paths-info")), "")
    at = parts.index(what) if what else len(parts)
    revision, *path = parts[at + 1 :] or ["main"]
    return "/".join(parts[:at]), what, revision, "/".join(path)


def sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def git_oid(blob: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()


def parents(path: str) -> Iterator[str]:
    """Yield a path and every folder that it lies in."""
    while path:
        yield path
        path = path.rpartition("/")[0]
