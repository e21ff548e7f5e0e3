"""A card as HTML: no script, nothing loaded from anywhere, readable in light and dark, on a phone, and by ear."""

from __future__ import annotations

import os
from collections.abc import Iterable
from html import escape
from pathlib import Path

from course_utils.cards.index import BandOf, Facts
from course_utils.errors import CourseError
from course_utils.raters.passages import Passage

# Colours of text and ground are the page's own, so that a card suits light and dark notebooks alike; marks are
# see-through on top of them. The strongest carry dark text of their own, or they could not be read on a dark page.
STYLE = """
.uth-card{max-width:60rem;border:1px solid #8888;border-radius:.5rem;padding:.8rem 1rem;line-height:1.5;
 font-family:system-ui,sans-serif;font-size:.9rem;text-align:left}
.uth-card h3{margin:0;font-size:1.1rem}
.uth-card h4{margin:.9rem 0 .3rem;font-size:.9rem}
.uth-card p{margin:.2rem 0}
.uth-card ul,.uth-card ol{margin:0;padding:0;list-style:none}
.uth-card li{margin:.15rem 0;overflow-wrap:anywhere}
.uth-card .ex li{border-left:.2rem solid #8886;padding-left:.5rem;margin:.3rem 0}
.uth-card .tk{white-space:pre-wrap;unicode-bidi:isolate;border-radius:.15rem;font-family:ui-monospace,monospace;
 font-size:.82rem}
.uth-card b.tk{font-weight:700;outline:1.5px solid currentColor}
.uth-card .row{display:flex;flex-wrap:wrap;gap:0 2rem}
.uth-card .row>div{flex:1 1 14rem;min-width:0}
.uth-card .num{font-variant-numeric:tabular-nums;opacity:.75;white-space:nowrap}
.uth-card .track{display:inline-block;width:4rem;margin-right:.4rem}
.uth-card .bar{display:inline-block;height:.6rem;border-radius:.1rem;vertical-align:baseline}
.uth-card .up{background:#0072b2}.uth-card .down{background:#d55e00}
.uth-card svg{display:block;max-width:100%;height:3.5rem}
"""
_HEAT = "230,159,0"  # Okabe and Ito's orange, seen by colour-blind readers; the number is in each token's title


def shown(text: str) -> str:
    """Make the text of a token visible: line breaks and other control characters as signs, the rest escaped."""
    signs = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
    return escape("".join(signs.get(c, c if c.isprintable() else "·") for c in text))


def token(text: str, value: float, peak: float, here: bool) -> str:
    """Return one token of a heat map: the stronger the activation, the deeper its ground."""
    share = min(max(value / peak, 0.0), 1.0) if peak else 0.0
    # On a dark page neither light nor dark text can be read on what lies between.
    alpha = 0.12 + 0.8 * share if share <= 0.5 else 0.42 + 0.48 * share
    ground = f"background:rgba({_HEAT},{alpha:.2f});" if share else ""
    ink = "color:#000;" if share > 0.5 else ""
    space = text[: len(text) - len(text.lstrip(" "))] if text.strip() else ""  # stays outside of the mark
    title = f' title="{value:.2f}"' if share else ""
    tag = "b" if here else "span"
    style = f' style="{ground}{ink}"' if ground else ""
    lead = f'<span class="tk">{space}</span>' if space else ""
    return f'{lead}<{tag} class="tk"{title}{style}>{shown(text[len(space):])}</{tag}>'


def passage(p: Passage, peak: float) -> str:
    """Return a passage as a heat map with the token pointed at in a frame, and its activation in numbers."""
    values = p.values or (0.0,) * len(p.tokens)
    pieces = (token(text, value, peak, i == p.at)
              for i, (text, value) in enumerate(zip(p.tokens, values, strict=True)))
    return f'<li><span class="num">{p.value:.2f}</span> {"".join(pieces)}</li>'


def _band(i: int, band: BandOf, n: int, peak: float, concept: str) -> str:
    where = "strongest" if i == 0 else "weakest" if i == n - 1 else f"band {i + 1} of {n}"
    inside = f", {band.inside:.0%} of it on {escape(concept)}" if band.inside is not None and concept else ""
    listed = "".join(passage(p, peak) for p in band.passages)
    return (f'<h4>{where.capitalize()}: {band.low:.2f} to {band.high:.2f} <span class="num">({band.n:,} tokens{inside})'
            f'</span></h4><ol class="ex">{listed}</ol>')


def _histogram(facts: Facts) -> str:
    counts, step = facts.histogram
    if not counts:
        return ""
    most = max(counts)
    bars = "".join(f'<rect x="{10 * i}" y="{60 - 60 * c / most:.1f}" width="9" height="{60 * c / most:.1f}"/>'
                   for i, c in enumerate(counts))
    said = f"Histogram of the activations above zero, from 0 to {facts.peak:.2f} in steps of {step:.2f}: " \
           f"{', '.join(map(str, counts))}."
    return (f'<svg viewBox="0 0 {10 * len(counts)} 60" preserveAspectRatio="none" role="img" fill="#0072b2" '
            f'aria-label="{said}"><title>{said}</title>{bars}</svg><p class="num">activation 0 to {facts.peak:.2f}</p>')


def _effects(name: str, pairs: list[tuple[str, float]], most: float, kind: str) -> str:
    rows = "".join(f'<li><span class="track"><span class="bar {kind}" style="width:{100 * abs(v) / most:.0f}%"></span>'
                   f"</span>"
                   f'<span class="tk">{shown(text)}</span> <span class="num">{v:+.2f}</span></li>' for text, v in pairs)
    return f"<div><h4>{name}</h4><ul>{rows}</ul></div>"


def _others(name: str, rows: Iterable[tuple[int, str, str]]) -> str:
    listed = "".join(f'<li><b>{latent}</b> <span class="num">{number}</span> <span class="tk">{shown(said)}</span></li>'
                     for latent, number, said in rows)
    return f"<div><h4>{name}</h4><ul>{listed or '<li>none</li>'}</ul></div>"


def fragment(facts: Facts) -> str:
    """Return the card as a piece of HTML, to stand in a notebook."""
    fits = f" · best concept on this text <b>{escape(facts.concept)}</b> (F1 {facts.f1:.2f})" if facts.concept else ""
    head = (f"<h3>Latent {facts.latent}</h3><p>{escape(facts.model)} · {escape(facts.hook)}{fits}</p>"
            f"<p>Active on <b>{facts.density:.2%}</b> of {facts.n_tokens:,} tokens.</p>")
    if facts.peak:
        cut = "".join(_band(i, band, len(facts.bands), facts.peak, facts.concept)
                      for i, band in enumerate(facts.bands))
    else:
        cut = "<p>It is silent on this text: there is nothing to read.</p>"
    effects = "<p>It does not write to the residual stream: no direct effect on the logits.</p>"
    if facts.logits is not None:
        most = max(abs(v) for _, v in facts.logits.top + facts.logits.bottom) or 1.0
        effects = '<div class="row">' + _effects("Raises the logits of", facts.logits.top, most, "up") + \
            _effects("Lowers the logits of", facts.logits.bottom, most, "down") + "</div>"
    near = [(o.latent, f"cosine {o.cosine:.2f}", said) for o, said in facts.neighbours]
    beside = [(o.latent, f"φ {o.phi:.2f}", said) for o, said in facts.cofiring]
    others = '<div class="row">' + _others("Nearest directions", near) + _others("Active together", beside) + "</div>"
    return (f'<section class="uth-card" aria-label="Card of latent {facts.latent}"><style>{STYLE}</style>{head}'
            f"{_histogram(facts)}{cut}{effects}{others}</section>")


def excerpt(passages: list[Passage]) -> str:
    """Return some passages alone, as HTML: what is shown to somebody who is to say what they have in common."""
    peak = max((p.value for p in passages), default=0.0)
    listed = "".join(passage(p, peak) for p in passages)
    return (f'<section class="uth-card" aria-label="Passages of a latent"><style>{STYLE}</style>'
            f'<ol class="ex">{listed}</ol></section>')


def page(facts: Facts) -> str:
    """Return the card as a whole page, which follows the reader's choice of light or dark."""
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" '
            'content="light dark"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>Latent {facts.latent}, {escape(facts.model)}</title></head>"
            f'<body style="margin:.6rem;background:Canvas;color:CanvasText">{fragment(facts)}</body></html>')


def plain(facts: Facts) -> str:
    """Return the card as text."""
    lines = [f"Latent {facts.latent} of {facts.model} at {facts.hook}: active on {facts.density:.2%} of tokens"
             + (f"; best concept {facts.concept} (F1 {facts.f1:.2f})" if facts.concept else "")]
    for band in facts.bands:
        lines.append(f"  {band.low:.2f} to {band.high:.2f}")
        lines += [f"    {p.value:6.2f}  {p.marked().strip()}".replace("\n", "⏎") for p in band.passages]
    if facts.logits is not None:
        lines += [f"  {name} {', '.join(repr(text) for text, _ in pairs)}"
                  for name, pairs in (("raises", facts.logits.top), ("lowers", facts.logits.bottom))]
    return "\n".join(lines)


class FeatureCard:
    """One latent's card: shows itself in a notebook, prints as text, and saves as a page of its own."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def __repr__(self) -> str:
        """Return the card as text."""
        return plain(self.facts)

    def _repr_html_(self) -> str:
        return fragment(self.facts)

    def save(self, path: str | os.PathLike) -> Path:
        """Write a page that needs no network and no other file.

        Raises
        ------
        CourseError
            If it cannot be written.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(page(self.facts), encoding="utf-8")
        except OSError as error:
            raise CourseError(f"path={str(path)!r} cannot be written ({error.strerror}); give another.") from None
        return target
