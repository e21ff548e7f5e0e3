"""Attention patterns to look at: circuitsvis' view with its script on board, and a plain picture of the same.

circuitsvis itself decides whether to load its script from a CDN by asking the network, and keeps the CDN's address in
its output. Here the script that it installs (``circuitsvis/dist/cdn/iife.js``, 1.3 MB) travels inside the output,
compressed to about a third of that, and is unpacked by the browser: nothing is ever loaded from elsewhere. A page needs
it once: one view shows all heads of all layers, and further views can do without (``script=False``).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.plots.figures import describe

_PAGE = """<div id="{id}" role="figure" aria-label="{alt}" style="margin:1em 0">
<p>{alt} To see them, run this cell (or trust the notebook): a script that the page brings along draws them.</p></div>
<script type="module">
const packed = "{packed}";
if (packed && !window.CircuitsVis) {{
  const bytes = Uint8Array.from(atob(packed), c => c.charCodeAt(0));
  const text = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const script = document.createElement("script");
  script.textContent = (await text) + ";window.CircuitsVis = CircuitsVis;";
  document.head.append(script);
}}
const here = document.getElementById("{id}");
here.replaceChildren();
window.CircuitsVis.render("{id}", window.CircuitsVis.AttentionHeads, {props});
</script>"""


class AttentionView(NamedTuple):
    """An interactive view of attention patterns; Jupyter shows it by itself."""

    html: str
    """The whole view, script and data included; it loads nothing."""
    script_bytes: int
    """How much of it is circuitsvis' script."""

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        """Say how large the view is, where no page can show it."""
        return f"attention view, {len(self.html):,} bytes, of them {self.script_bytes:,} for the script"


def attention_view(pattern: Float[Tensor, "head query key"], tokens: Sequence[str],
                   names: Sequence[str] | None = None, *, script: bool = True) -> AttentionView:
    """Show attention patterns with circuitsvis: point at a head to enlarge it, at a token to see what it reads.

    Parameters
    ----------
    pattern
        One square a head, rows are queries; heads of several layers may be stacked.
    tokens
        Text of each token.
    names
        Name of each head; ``"head 0"`` and so on by default.
    script
        Bring circuitsvis' script along (half a megabyte). False where an earlier view of the same page has it; in
        Colab each output is a page of its own.

    Raises
    ------
    CourseError
        If the shapes do not fit, or circuitsvis is installed without its script.
    """
    values, tokens, names = _checked(pattern, tokens, names)
    shown = [token.replace("\n", "↵") for token in tokens]  # a line break would break the token's box
    props = json.dumps({"attention": values.round(4).tolist(), "tokens": shown, "attentionHeadNames": names,
                        "maxValue": 1, "minValue": 0, "maskUpperTri": True}).replace("</", "<\\/")
    name = "attention-" + hashlib.sha256(props.encode()).hexdigest()[:12]  # the same on every run
    alt = f"Attention patterns of {len(names)} heads over {len(tokens)} tokens, from each token to the earlier ones."
    packed = _packed_script() if script else ""
    return AttentionView(_PAGE.format(id=name, alt=escape(alt), packed=packed, props=props), len(packed))


def attention_picture(pattern: Float[Tensor, "head query key"], tokens: Sequence[str],
                      names: Sequence[str] | None = None, *, columns: int = 4, alt: str = "") -> list[Axes]:
    """Draw the same patterns as plain pictures, one panel a head, for where no script runs.

    Parameters
    ----------
    pattern, tokens, names
        As in :func:`attention_view`.
    columns
        Panels side by side.
    alt
        What the picture shows; by default, for each head, what the last token reads most.
    """
    from matplotlib import pyplot

    values, tokens, names = _checked(pattern, tokens, names)
    shown = [token.replace("\n", "↵").strip(" ") or "␣" for token in tokens]
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    side = 0.9 + 0.19 * len(shown)
    figure, axes = pyplot.subplots(rows, columns, figsize=(columns * side, rows * side), layout="constrained",
                                   sharex=True, sharey=True, squeeze=False)
    for ax, square, name in zip(axes.flat, values, names, strict=False):
        image = ax.imshow(np.where(np.tri(len(shown), dtype=bool), square, np.nan), cmap="cividis", vmin=0, vmax=1)
        ax.set_title(name, fontsize=9)
        ax.set_xticks(range(len(shown)), shown, rotation=90, fontsize=7)
        ax.set_yticks(range(len(shown)), shown, fontsize=7)
    for ax in axes.flat[len(names):]:
        ax.set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.6, label="attention")
    figure.supxlabel("read from", fontsize=9)
    figure.supylabel("read by", fontsize=9)
    said = ", ".join(f"{name} {shown[int(square[-1].argmax())]!r}" for name, square in zip(names, values, strict=True))
    describe(axes.flat[0], alt or f"Attention patterns. The last token {shown[-1]!r} reads most from: {said}.")
    return list(axes.flat[:len(names)])


def _checked(pattern: Tensor, tokens: Sequence[str],
             names: Sequence[str] | None) -> tuple[np.ndarray, list[str], list[str]]:
    """Bring the patterns to numpy and see that tokens and names fit."""
    values, tokens = np.asarray(pattern.detach().float().cpu()), list(tokens)
    if values.ndim != 3 or values.shape[1:] != (len(tokens),) * 2 or not len(values):
        raise CourseError(f"pattern has shape {values.shape}; for {len(tokens)} tokens it must be "
                          f"[heads, {len(tokens)}, {len(tokens)}].")
    if names is None:
        names = [f"head {i}" for i in range(len(values))]
    if len(names) != len(values):
        raise CourseError(f"names has {len(names)} entries for {len(values)} heads.")
    return values, tokens, list(names)


@cache
def _packed_script() -> str:
    """Return circuitsvis' installed script, compressed and in letters that HTML leaves alone."""
    spec = find_spec("circuitsvis")
    file = Path(spec.origin).parent / "dist" / "cdn" / "iife.js" if spec and spec.origin else Path()
    if not file.is_file():
        raise CourseError("circuitsvis is not installed with its script (dist/cdn/iife.js); install circuitsvis, "
                          "or use attention_picture.")
    return base64.b64encode(gzip.compress(file.read_bytes(), mtime=0)).decode()
