"""What a figure owes to readers who see colours otherwise, or not at all: colours that differ, and words.

Colour-blindness is simulated by Machado, Oliveira & Fernandes (2009, doi 10.1109/TVCG.2009.113) at full severity, and
differences are counted in CAM02-UCS (Luo, Cui & Li 2006), where 1 is about what can just be told apart.
"""

import re
from itertools import combinations
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from course_utils.cards.page import token
from course_utils.plots import PALETTE

colorspacious = pytest.importorskip("colorspacious", reason="pip install -e '.[dev]'")

EYES = [None, "deuteranomaly", "protanomaly", "tritanomaly"]
APART = 10  # the smallest difference between two colours of one figure
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
by_eye = pytest.mark.parametrize("eye", EYES)


def seen(colours, eye) -> np.ndarray:
    """Return colours ``[n 3]`` in CAM02-UCS (lightness first) as this eye sees them."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    if eye:
        space = {"name": "sRGB1+CVD", "cvd_type": eye, "severity": 100}
        rgb = np.clip(colorspacious.cspace_convert(rgb, space, "sRGB1"), 0, 1)
    return colorspacious.cspace_convert(rgb, "sRGB1", "CAM02-UCS")


def nearest(colours, eye) -> float:
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(seen(colours, eye), 2))


@by_eye
def test_any_two_colours_of_the_palette_are_told_apart(eye):
    assert nearest(PALETTE, eye) > APART
    assert nearest(PALETTE[:2], eye) > 3 * APART  # the pair that most figures are drawn with


@by_eye
def test_the_phases_of_a_map_are_told_apart(eye):
    assert nearest(["0.9", PALETTE[5], PALETTE[4], PALETTE[2]], eye) > APART


def test_the_check_finds_colours_that_are_not():
    red, green = "#b0472b", "#6f7a21"
    assert nearest([red, green], None) > APART > nearest([red, green], "deuteranomaly")


@by_eye
@pytest.mark.parametrize("name", ["cividis", "magma", "Blues"])
def test_the_colours_of_a_scale_grow_lighter_or_darker_all_the_way(name, eye):
    steps = np.diff(seen(matplotlib.colormaps[name](np.linspace(0, 1, 16))[:, :3], eye)[:, 0])
    assert (steps > 0).all() or (steps < 0).all()


@by_eye
def test_the_two_ends_of_a_signed_scale_are_told_apart(eye):
    assert nearest(matplotlib.colormaps["PuOr"]([0.1, 0.5, 0.9])[:, :3], eye) > 2 * APART


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_of_a_notebook_says_in_words_what_it_shows(path):
    outputs = [(cell, out) for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])]
    alts = [out.metadata.get("image/png", {}).get("alt") or cell.metadata.get("alt", "")
            for cell, out in outputs if "image/png" in out.get("data", {})]
    assert alts and min(map(len, alts)) > 25


def light(rgb) -> float:
    """Return relative luminance as WCAG 2.2 defines it."""
    linear = np.where(np.array(rgb) <= 0.04045, np.array(rgb) / 12.92, ((np.array(rgb) + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("page, text", [("#ffffff", "#212121"), ("#ffffff", "#000000"), ("#121212", "#ffffff"),
                                        ("#111111", "#dddddd")])  # JupyterLab's and the browser's own, light and dark
def test_a_token_can_be_read_at_every_strength_of_its_mark(page, text):
    alphas = []
    for share in np.linspace(0, 1, 501)[1:]:
        style = re.search(r'style="([^"]+)"', token(" tiger", float(share), 1.0, False))[1]
        *ground, alpha = (float(x) for x in re.search(r"rgba\(([^)]+)", style)[1].split(","))
        mark = alpha * np.array(ground) / 255 + (1 - alpha) * np.array(to_rgb(page))
        bright = sorted([light(mark), light(to_rgb("#000000" if "color:#000" in style else text))])
        assert (bright[1] + 0.05) / (bright[0] + 0.05) >= 4.5, (share, style)
        alphas.append(alpha)
    assert (np.diff(alphas) >= 0).all()
