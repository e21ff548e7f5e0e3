"""The attention view works with the network cut, and its plain picture says the same."""

import base64
import gzip
import re
import shutil
import subprocess

import pytest
import torch

from course_utils.errors import CourseError
from course_utils.plots import alt_text
from course_utils.widgets.attention import attention_picture, attention_view

WORDS = ["\n", "The", " <b>", " </script>", " is"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# What makes a browser load something; a bare address in a comment or a message loads nothing.
LOADS = re.compile(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//
    |(?:import|fetch|from|importScripts|open)\s*\(?\s*["'`](?:https?:)?//""", re.X)


@pytest.fixture
def pattern():
    return torch.softmax(torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(0)), -1).tril()


def script_of(html):
    packed = re.search(r'const packed = "([^"]*)"', html).group(1)
    return gzip.decompress(base64.b64decode(packed)).decode()


def test_the_view_brings_the_installed_script_along_and_nothing_is_loaded(pattern, no_network):
    from importlib.util import find_spec
    from pathlib import Path

    view = attention_view(pattern, WORDS)
    installed = Path(find_spec("circuitsvis").origin).parent / "dist" / "cdn" / "iife.js"
    assert script_of(view.html) == installed.read_text(encoding="utf-8")
    assert "//" not in re.sub(r'"[A-Za-z0-9+/=]{1000,}"', "", view.html)  # no address at all outside of the script
    assert not LOADS.search(script_of(view.html))
    assert not no_network


def test_the_check_for_loading_can_fail():
    for text in ('<script src="https://a.b">', 'import("https://a.b/c.js")', "fetch('//a.b')", "url(https://a.b/c.woff)"):
        assert LOADS.search(text)


def test_the_script_is_a_third_of_its_size_and_need_not_come_twice(pattern):
    view, second = attention_view(pattern, WORDS), attention_view(pattern, WORDS, script=False)
    assert view.script_bytes < 0.4 * len(script_of(view.html)) and view.script_bytes < 600_000
    assert second.script_bytes == 0 and len(second.html) < 5_000
    assert attention_view(pattern, WORDS).html == view.html == view._repr_html_()  # the same on every run
    assert f"{view.script_bytes:,}" in repr(view)


def test_tokens_cannot_break_out_of_the_page(pattern):
    html = attention_view(pattern, WORDS).html
    assert html.count("</script>") == 1 and html.index("</script>") > html.index("<\\/script>")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine; install one to see the view drawn")
def test_a_browser_without_a_network_draws_every_head(pattern, tmp_path):
    html = attention_view(pattern, WORDS, [f"head-{i}" for i in range(6)]).html
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><body>{html}", encoding="utf-8")
    said = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000",
                           f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
                           "--dump-dom", str(tmp_path / "page.html")], capture_output=True, text=True, timeout=60)
    body = re.sub(r"<script.*?</script>", "", said.stdout, flags=re.S)
    assert "Head Selector" in body and "a script that the page brings along" not in body
    assert all(f"head-{i}" in body for i in range(6)) and body.count("<canvas") + body.count("<img") >= 6


def test_the_picture_shows_each_head_below_the_diagonal_and_says_what_is_read(pattern):
    axes = attention_picture(pattern, WORDS, columns=4)
    assert [ax.get_title() for ax in axes] == [f"head {i}" for i in range(6)]
    for ax, square in zip(axes, pattern, strict=True):
        shown = torch.tensor(ax.images[0].get_array().filled(0.0))
        assert torch.allclose(shown.float(), square, atol=1e-6)
    read = WORDS[int(pattern[2, -1].argmax())].strip() or "↵"
    assert f"head 2 {read!r}" in alt_text(axes[0].figure)


@pytest.mark.parametrize(("change", "said"), [
    (lambda p: (p, WORDS[:4]), r"for 4 tokens it must be \[heads, 4, 4\]"),
    (lambda p: (p, WORDS, ["one"]), "names has 1 entries for 6 heads"),
    (lambda p: (p[:0], WORDS), "pattern has shape")])
def test_what_does_not_fit_is_refused_in_a_sentence(pattern, change, said):
    for show in (attention_view, attention_picture):
        with pytest.raises(CourseError, match=said):
            show(*change(pattern))
