"""Sparse dictionaries: train one, save it, load it. The only room that imports ``sae_lens``.

Classes, losses and schedules are the library's own, for every family that it registers for training:

1. Scale activations to a mean norm of sqrt(d) ("expected_average_only_in", Anthropic, April 2024); start ``b_dec`` at
   their mean, and the encoder at the transpose of a decoder with rows of length 1.
2. A step (`training`): the family's loss and its gradients (`steps`) → clip the gradient to norm 1 → Adam.
3. Warm the learning rate up for 5 % of the steps, and let it fall to zero in the last 20 %.
4. Fold the scale into the weights and the decoder's norms into the encoder: the SAE takes raw activations, and a
   latent's value is the length of what it adds to them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import course_utils
from course_utils.activations import Activations
from course_utils.dictionaries import checkpoints, choice, published, reading, shelf, steps, training
from course_utils.dictionaries.evaluation import Evaluation, evaluate
from course_utils.dictionaries.frontiers import family_frontier, kept_frontier
from course_utils.dictionaries.matching import Matched, Trial, train_at_l0
from course_utils.dictionaries.preprocessing import Preprocessing, preprocessing_check
from course_utils.dictionaries.published import published_saes
from course_utils.dictionaries.ready import ready_sae
from course_utils.dictionaries.recipes import Recipe, as_activations, check_kind, passes, source
from course_utils.dictionaries.shelf import saes, save_sae
from course_utils.errors import CourseError, one_of
from course_utils.lab.machine import pick_device

__all__ = ["Evaluation", "Matched", "Preprocessing", "Run", "Trial", "evaluate", "families",
           "family_frontier", "kept_frontier", "load_sae", "preprocessing_check", "published_saes", "ready_sae", "saes",
           "save_sae", "train_at_l0", "train_sae"]


class Run(NamedTuple):
    """What training leaves."""

    sae: Any
    """The library's inference SAE for raw activations; decoder rows of length 1 (nearly, in matching_pursuit)."""
    log: training.Rows
    """Rows of step, samples, loss, mse (the last two in scaled units), l0, explained_variance, dead (a fraction); with
    ``heldout``, also heldout_l0 and heldout_explained_variance."""
    seconds: float
    """Wall-clock time of the training, all resumed parts together."""


def families() -> list[str]:
    """List what ``kind`` may be: every family that the library registers for training."""
    import sae_lens  # noqa: F401  (fills the registry)
    from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

    return list(SAE_TRAINING_CLASS_REGISTRY)


def new_config(recipe: Recipe, config: type, d: int) -> Any:
    """Fill in the library's training config; what the user gave in ``options`` comes last."""
    names = {f.name for f in fields(config)}
    if unknown := set(recipe.options) - names:
        raise one_of(f"option of kind={recipe.kind!r}", min(unknown), sorted(names - {"d_in", "d_sae"}))
    ours = {name: value for name, value in recipe.family_settings(d).items() if name in names}
    try:
        return config(**ours | recipe.options | {"d_in": d, "d_sae": recipe.width, "device": "cpu"})
    except (TypeError, ValueError) as error:
        raise CourseError(f"options={recipe.options} are refused by sae-lens: {error}") from error


def new_parts(recipe: Recipe, mean: Float[Tensor, " d"], device: torch.device) -> training.Parts:
    """Build the library's SAE and schedules; ``mean`` is that of the scaled activations."""
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.training.optim import CoefficientScheduler, get_lr_scheduler

    training_class, config = get_sae_training_class(recipe.kind)
    settings = new_config(recipe, config, len(mean))
    with torch.random.fork_rng(devices=[]):  # the library draws from torch's global generator
        torch.manual_seed(recipe.seed)
        sae = steps.frugal(training_class, recipe.aux_rows)(settings)
    sae.b_dec.data.copy_(mean)
    sae = sae.to(device)
    if "batchtopk" in recipe.kind and device.type == "cpu":
        sae.activation_fn = training.BatchTopK(settings.k)
    coefficients = {}
    for name, c in sae.get_coefficients().items():
        value, warm_up = c if isinstance(c, tuple) else (c, 0)
        coefficients[name] = CoefficientScheduler(warm_up, value)
    rates = training.rates(get_lr_scheduler, recipe, len(mean))
    gradients = choice.choose(recipe.step, recipe.kind, sae.train(), TrainStepInput, recipe.aux_rows)
    return training.Parts(sae, gradients, rates, coefficients)


def _inference(sae: Any) -> Any:
    """Return the library's inference form of a training SAE (BatchTopK becomes JumpReLU), decoder rows of length 1."""
    from sae_lens import SAE

    state = {name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(state)
    with torch.random.fork_rng(devices=[]):
        result = SAE.from_dict(sae.cfg.get_inference_sae_cfg_dict())
    result.load_state_dict(state)
    if sae.cfg.architecture() != "matching_pursuit":  # the library refuses; its rows must not be rescaled
        result.fold_W_dec_norm()
    return result.eval().requires_grad_(False)


def train_sae(
    acts: Activations | Float[Tensor, "n d_model"] | Iterable[Tensor], width: int = 1024, k: int | float = 16,
    kind: str = "batchtopk", n_samples: int | None = None, batch_size: int = 1024, lr: int | float | None = None,
    l1: int | float | None = None, seed: int = 0, checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 200, log_every: int = 50, on_log: Callable[[training.Rows], object] | None = None,
    device: str = "auto", aux_rows: int | None = 256, step: str = "auto", scaled: bool = True, centred: bool = True,
    freeze_decoder: bool = False, heldout: Activations | Float[Tensor, "m d_model"] | None = None, **options: Any,
) -> Run:
    """Train an SAE on activations.

    Parameters
    ----------
    acts
        A harvest (BOS is left out), a tensor, or any iterable of ``[batch, d_model]`` tensors of any length.
    width
        Number of latents.
    k
        Active latents a token: exactly (topk, abstopk), on average (batchtopk, matryoshka_batchtopk), as a target of
        the loss (jumprelu), at most (matching_pursuit); ``standard`` and ``gated`` go by ``l1`` instead.
    kind
        One of `families`.
    n_samples
        Activations to train on, repeats included; None: three passes over a harvest. A stream needs a number.
    batch_size, lr
        Activations a step, and Adam's peak rate; None: a rate that suits the family, ``d_model`` and ``width``.
    l1
        Weight of the sparsity penalty of ``standard`` and ``gated``; None: one that leads to some 16 active latents.
    seed
        Draws the initial weights and the order of the activations.
    checkpoint, checkpoint_every
        A folder and a number of steps: write a checkpoint so often, and resume from the newest to the very weights of a
        run without interruption (same machine, same number of threads). A finished run is read back. A stream must
        then be given from its beginning.
    log_every, on_log
        Steps between rows of the log; a function that gets all rows so far, e.g. for a live plot.
    device
        ``"auto"`` (cuda, else cpu), or a name that torch knows.
    aux_rows
        Rows of a batch that revive dead latents (AuxK, in the topk families); None: all, which costs far more.
    step
        ``"library"`` (sae-lens' own step), or ours for standard, gated, jumprelu, topk and batchtopk on a CPU, the same
        losses and gradients in closed form: ``"float32"``, or ``"bfloat16"``, which rounds products with all latents.
        ``"auto"``: ours where it serves, in bfloat16 where the processor has that.
    scaled, centred
        Scale activations to a mean length of sqrt(d_model) while training; start ``b_dec`` at their mean.
    freeze_decoder
        Leave the decoder at its random start and train all else: the null of Sanity checks for SAEs (arXiv 2602.14111).
    heldout
        Activations that the log measures as well (BOS left out), without training on them.
    **options
        Other fields of the library's training config, e.g. ``aux_loss_coefficient=0.1``.

    Returns
    -------
    Run
        ``sae``, ``log`` and ``seconds``.

    Raises
    ------
    CourseError
        On a setting out of range, an unknown family or option, NaN, too few activations, or another run's checkpoint.
    """
    check_kind(kind, families())
    acts = as_activations(acts)
    n_samples = passes(acts, n_samples, batch_size)
    recipe = Recipe(kind, width, k, lr, l1, n_samples, batch_size, seed, aux_rows, options, step, scaled, centred,
                    freeze_decoder)
    folder = None if checkpoint is None else checkpoints.prepare(checkpoint)
    head, batches = source(acts, batch_size, seed)
    first = torch.cat(head).double()
    scale = float(first.shape[1] ** 0.5 / first.norm(dim=1).mean()) if scaled else 1.0
    start = (first.mean(0) * scale * centred).float()
    held = None if heldout is None else (a := as_activations(heldout)).x[a.usable]
    where = pick_device(device)
    if (device, where.type) == ("auto", "mps"):  # BatchTopK's threshold is a float64, which mps does not have
        where = torch.device("cpu")
    trainer = training.Trainer(recipe, new_parts(recipe, start, where), scale, held)
    marks = {"d_model": first.shape[1], "mean_norm_of_activations": float(f"{first.norm(dim=1).mean():.6g}")}
    log, seconds = training.run(trainer, batches, recipe.settings(**marks), folder, checkpoint_every, log_every, on_log)
    trainer.sae.fold_activation_norm_scaling_factor(scale)
    metadata = {"hook_name": getattr(acts, "hook", None), "model_name": getattr(acts, "model", None),
                "n_samples": trainer.steps * batch_size, "seed": seed, "prepend_bos": True,
                "course_version": course_utils.__version__}
    for name, value in metadata.items():
        trainer.sae.cfg.metadata[name] = value
    return Run(_inference(trainer.sae), log, seconds)


def load_sae(name: str | os.PathLike, device: str = "cpu", fold: bool = True) -> Any:
    """Read an SAE: one saved by `save_sae` or by sae-lens, a ready one of the course, or a published one.

    Parameters
    ----------
    name
        A folder with ``cfg.json`` and ``sae_weights.safetensors``, a folder's name below ``data/saes``, or
        ``"<release>/<id>"`` from sae-lens' list, e.g. ``"gpt2-small-res-jb/blocks.6.hook_resid_pre"``.
    device
        Where to put it.
    fold
        Let an SAE that was trained on centred activations take those of the lab (`reading`); False leaves its weights
        as they were published.

    Raises
    ------
    CourseError
        If there is none, its files are cut short, a shipped one differs from its checksum, or the hub is needed and
        out of reach.
    """
    from sae_lens import SAE
    from safetensors import SafetensorError

    folder = shelf.find(name)
    try:
        if folder is None:
            sae = published.load(SAE, releases(), str(name), device)
        else:
            with published.quiet():
                sae = SAE.load_from_disk(folder, device=device)
    except CourseError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise CourseError(f"name={str(name)!r} holds an SAE that is damaged or cut short "
                          f"({type(error).__name__}); save or download it again.") from error
    return reading.opened(sae, fold)


def releases() -> dict[str, Any]:
    """Return sae-lens' list of published SAEs: release → repository, model, and the folder of each SAE by its id."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return get_pretrained_saes_directory()
