"""A headless Chromium without a network, pages that say what they asked for, axe-core's judgement, and a JupyterLab.

Chromium comes from the system (``apt-get install -y chromium``, or ``COURSE_CHROMIUM=/path/to/one``), Playwright and
axe-core from the development extras. Without one of them the tests that ask for a browser are skipped and say so.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from course_utils.paths import DATA

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
HOW = "no Chromium here: apt-get install -y chromium, or COURSE_CHROMIUM=/path/to/one"
NEAR = re.compile(r"^(?:file:|data:|blob:|about:|(?:http|ws)://127\.0\.0\.1[:/])")
SHOTS = DATA.parent / "build" / "browser"  # kept for whoever wants to see what the tests saw
PHONE = {"width": 360, "height": 740}


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium without a network, or skip the test with a line that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here: pip install -e '.[dev]'")
    place = os.environ.get("COURSE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if place is None:
        pytest.skip(HOW)
    cut = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=place, args=cut)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, **settings: Any) -> Iterator[Any]:
    """Open a page, and see afterwards that it asked for nothing outside of this machine and ran without an error."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    asked: list[str] = []
    errors: list[str] = []
    context.route(re.compile(f"^(?!{NEAR.pattern[1:]})"), lambda route: route.abort())
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    assert asked and [url for url in asked if not NEAR.match(url)] == []
    assert errors == []


def kept(name: str) -> Path:
    """Return where a screenshot is kept."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS / f"{name}.png"


def violations(page: Any) -> list[str]:
    """Return what axe-core finds serious or critical: rule, how often, and the first place."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{v['id']} ({v['impact']}) x {len(v['nodes'])}: {v['nodes'][0]['html'][:200]}" for v in found
            if v["impact"] in ("serious", "critical")]


def overflow(page: Any) -> int:
    """Return by how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """Serve a folder with JupyterLab and kernels of this very environment, their network cut; yields its address.

    Settings, progress and whatever kernels write go to ``home/`` in the folder.
    """
    home = folder / "home"
    (home / "config" / "labconfig").mkdir(parents=True)
    # The one extension that asks (after a question) for news from elsewhere; its question would cover the page.
    (home / "config" / "labconfig" / "page_config.json").write_text(
        '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    dead = "http://127.0.0.1:9"
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("COURSE_", "JUPYTER", "HF_", "MPLBACKEND", "PYTEST"))}
    env = kept | {"JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"),
                  "JUPYTER_RUNTIME_DIR": str(home / "run"), "IPYTHONDIR": str(home / "ipython"),
                  "COURSE_BUILD": str(home / "build"), "COURSE_CACHE": str(home / "cache"),
                  "COURSE_PROGRESS": str(home / "progress.json"), "HTTP_PROXY": dead, "HTTPS_PROXY": dead,
                  "http_proxy": dead, "https_proxy": dead, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={folder}"]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/api", server, home / "server.log")
        yield f"http://127.0.0.1:{port}/lab/tree"
    finally:
        server.terminate()  # it ends its kernels
        server.wait(30)


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            ask.open(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(log.read_text()[-2000:])
