"""The families that notebook 03 writes by hand, from its exercises' answers, against sae-lens' own training step."""

import ast
import inspect
from pathlib import Path

import nbformat
import pytest
import torch
from torch.nn.functional import normalize

from course_utils.dictionaries.library import library_step
from course_utils.errors import CourseError
from course_utils.exercises import find

D, WIDTH, K, PENALTY, BANDWIDTH = 8, 20, 3, 0.4, 0.5
STEP = {"jumprelu_sparsity_loss_mode": "step", "jumprelu_bandwidth": BANDWIDTH}


def made(*own):
    """Return random weights, decoder rows of length 1, and activations."""
    g = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, WIDTH), "W_dec": (WIDTH, D), "b_dec": (D,)} | {name: (WIDTH,) for name in own}
    w = {name: torch.randn(shape, generator=g) / 2 for name, shape in shapes.items()}
    w["W_dec"] = normalize(w["W_dec"], dim=1)
    if "threshold" in w:
        w["threshold"] = w["threshold"].abs()
    return {name: t.requires_grad_() for name, t in w.items()}, 2 * torch.randn(64, D, generator=g)


def encode(w, x):
    return (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]


def error(w, f, x):
    return (f @ w["W_dec"] + w["b_dec"] - x).square().sum(-1)


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pre, threshold):
        ctx.save_for_backward(pre, threshold)
        return (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx, grad):
        return None, find("03.7").answer(*ctx.saved_tensors, BANDWIDTH) * grad


def jumprelu(w, x):
    pre, threshold = encode(w, x), w["threshold"].expand(len(x), -1)
    on = Step.apply(pre, threshold)
    f = pre * on.detach() + threshold.detach() * (on - on.detach())
    return f, error(w, f, x) + PENALTY * on.sum(-1)


def gated(w, x):
    f = find("03.8").answer(x, *(w[name] for name in ("W_enc", "b_gate", "r_mag", "b_mag", "b_dec")))
    gate = ((x - w["b_dec"]) @ w["W_enc"] + w["b_gate"]).relu()
    return f, error(w, f, x) + error(w, gate, x) + PENALTY * gate.sum(-1)


def topk(w, x, dead=None, batch=False):
    pre = encode(w, x)
    keep = find("03.6").answer
    f = keep(pre.flatten(), K * len(x)).view_as(pre) if batch else keep(pre, K)
    loss = error(w, f, x)
    if dead is not None:
        loss = loss + find("03.9").answer((x - f @ w["W_dec"] - w["b_dec"]).detach(), pre, dead, w["W_dec"])
    return f, loss


DEAD, TWO = torch.arange(WIDTH) % 3 == 0, torch.arange(WIDTH) < 2
FAMILIES = {
    "standard": (("b_enc",), lambda w, x: find("03.1").answer(x, **w, penalty=PENALTY), {}),
    "topk": (("b_enc",), topk, {}),
    "topk, AuxK": (("b_enc",), lambda w, x: topk(w, x, DEAD), {"dead": DEAD}),
    "topk, AuxK for two": (("b_enc",), lambda w, x: topk(w, x, TWO), {"dead": TWO}),
    "batchtopk": (("b_enc",), lambda w, x: topk(w, x, batch=True), {}),
    "jumprelu": (("b_enc", "threshold"), jumprelu, STEP),
    "gated": (("b_gate", "r_mag", "b_mag"), gated, {}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_by_hand_is_the_librarys_in_latents_loss_and_gradients(name):
    own, family, options = FAMILIES[name]
    w, x = made(*own)
    f, loss = family(w, x)
    loss.mean().backward()
    theirs = library_step(name.split(",")[0], w, x, k=K, penalty=PENALTY, **options)
    assert (f > 0).float().mean() > 0.05
    assert torch.allclose(f, theirs.latents, atol=1e-5) and torch.allclose(loss.mean(), theirs.loss, rtol=1e-5)
    assert torch.allclose(f @ w["W_dec"] + w["b_dec"], theirs.reconstruction, atol=1e-5)
    for weight, t in w.items():
        apart = t.grad - theirs.gradients[weight]
        if weight == "W_dec":  # the library's penalty also pulls along the row, which the projection takes out
            apart = apart - (apart * t.detach()).sum(-1, keepdim=True) * t.detach()
        assert apart.abs().max() < 1e-5 * max(1, float(t.grad.abs().max())), weight


def test_axes_in_front_are_dropped_and_weights_stay_as_they_are():
    w, x = made("b_enc")
    before = {name: t.detach().clone() for name, t in w.items()}
    one = library_step("topk", w, x, k=K)
    two = library_step("topk", {name: t[None] if t.ndim > 1 else t[None, None] for name, t in w.items()}, x, k=K)
    assert torch.equal(one.latents, two.latents) and torch.equal(one.loss, two.loss)
    assert all(torch.equal(w[name], t) and w[name].grad is None for name, t in before.items())


def test_what_does_not_fit_is_named():
    w, x = made("b_enc")
    with pytest.raises(CourseError, match="threshold"):
        library_step("topk", w | {"threshold": w["b_enc"]}, x, k=K)
    with pytest.raises(CourseError, match=r"'b_enc'\] has shape \(19,\)"):
        library_step("topk", w | {"b_enc": w["b_enc"][1:]}, x, k=K)
    with pytest.raises(CourseError, match="kind='topck'"):
        library_step("topck", w, x, k=K)


BY_HAND = {"L1": ("03.1",), "TopK": ("03.6", "counted"), "BatchTopK": ("03.6", "batch_top_k", "counted"),
           "JumpReLU": ("03.7", "Step", "jumprelu"), "Gated": ("03.8", "gated")}


@pytest.mark.parametrize("family", BY_HAND)
def test_a_family_takes_at_most_fifteen_lines_by_hand(family):
    path, = (Path(__file__).parents[1] / "notebooks").glob("03_*.ipynb")
    cells = (cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
             and "setup" not in cell.metadata.get("tags", []))
    defined = {node.name: node for source in cells for node in ast.parse(source).body
               if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    answers = {part: ast.parse(inspect.getsource(find(part).answer)).body[0]
               for part in BY_HAND[family] if part[0].isdigit()}
    assert sum(map(lines, (({**defined, **answers})[part] for part in BY_HAND[family]))) <= 15


def lines(tree):
    """Count a definition's lines of code, without docstrings and decorators."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.decorator_list = []
            node.body = node.body[ast.get_docstring(node) is not None:]
    return len([line for line in ast.unparse(tree).splitlines() if line.strip()])
