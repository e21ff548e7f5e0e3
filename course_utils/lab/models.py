"""Find a model's directory (embedded, local or from the hub), prove it whole, load it."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from course_utils import paths
from course_utils.errors import CourseError
from course_utils.lab.hub import OFFLINE, drop_spoilt, hub_client, require_hub, why

ORGANISM_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)
_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "vocab.txt")
_PATTERNS = ["*.json", "*.safetensors", "*.model", "merges.txt", "vocab.txt"]
_WANTED = {"allow_patterns": _PATTERNS, "ignore_patterns": ["*/*"]}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def find_model(model: str) -> Path:
    """Return the checked directory of a model.

    Parameters
    ----------
    model
        ``"organism"``, a local directory, or a hub id such as ``"gpt2"``.

    Returns
    -------
    Path
        A Hugging Face checkpoint directory: ``config.json``, whole safetensors weights, a tokenizer.

    Raises
    ------
    CourseError
        If there is no such model, its files are incomplete or damaged, or the hub is needed and out of reach.
    """
    if model == "organism":
        return [paths.checked(f"organism/{name}") for name in ORGANISM_FILES][0].parent
    path = Path(model).expanduser()
    if path.is_dir():
        check_directory(path)
        return path
    if path.exists() or not _HUB_ID.fullmatch(model) or model.startswith("."):
        raise CourseError(
            f"model={model!r} is not a directory on this machine and not a hub id; allowed: 'organism', "
            "a Hugging Face checkpoint directory, or a hub id such as 'gpt2'."
        )
    return _from_hub(model)


def check_directory(directory: Path) -> None:
    """Raise a `CourseError` unless a directory holds a config, a tokenizer and whole safetensors weights."""
    config = directory / "config.json"
    if not config.is_file():
        raise CourseError(
            f"model={str(directory)!r} has no config.json; give the directory of a Hugging Face checkpoint."
        )
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CourseError(
            f"model={str(directory)!r}: config.json is not JSON ({error}); copy it again."
        ) from error
    # transformers would make up an empty tokenizer and say nothing.
    there = {name for name in _TOKENIZERS if (directory / name).is_file()}
    if there == {"vocab.json"} and not (directory / "merges.txt").is_file():
        raise CourseError(f"model={str(directory)!r} has vocab.json without merges.txt; copy it again.")
    if not there:
        raise CourseError(f"model={str(directory)!r} has no tokenizer; allowed: {', '.join(_TOKENIZERS)}.")
    for file in weight_files(directory):
        _header(file)


def files_of(directory: Path) -> list[Path]:
    """List the files of a checkpoint directory that are opened, its own world among them."""
    own = [path for path in (directory / "world").rglob("*") if path.is_file()]
    return sorted({path for pattern in _PATTERNS for path in directory.glob(pattern)} | {*own})


def weight_files(directory: Path) -> list[Path]:
    """List the safetensors files of a checkpoint directory, as its index names them where it has one."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [directory / name for name in names]
    else:
        files = [directory / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise CourseError(
                f"model={str(directory)!r} has no {file.name}; only safetensors weights are opened, "
                "never pickled ones."
            )
    return files


def _header(file: Path) -> dict[str, list[int]]:
    """Shapes by name; reading the header alone finds a file that was cut short."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as handle:
            return {name: handle.get_slice(name).get_shape() for name in handle.keys()}
    except (SafetensorError, OSError) as error:
        raise CourseError(
            f"{str(file)!r} is cut short or damaged ({error}); copy or download it again."
        ) from error


def n_params(directory: Path) -> int:
    """Count the weights stored in a checkpoint directory, without reading them."""
    return sum(math.prod(shape) for file in weight_files(directory) for shape in _header(file).values())


def _from_hub(model: str) -> Path:
    """Return the cached copy if it is whole, else download the files needed, each of which is whole or absent."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with hub_client(offline=True):
            cached = Path(snapshot_download(model, local_files_only=True, **_WANTED))
        drop_spoilt(cached)
        check_directory(cached)
        return cached
    except (LocalEntryNotFoundError, CourseError):
        return fetch(model)


def fetch(model: str) -> Path:
    """Download what is missing of a model on the hub, and compare it with its digests; errors as of `find_model`."""
    from huggingface_hub import snapshot_download

    require_hub(f"model={model!r}")
    for _ in range(2):
        with _said(model), hub_client():
            directory = Path(snapshot_download(model, **_WANTED))
        if not (spoilt := drop_spoilt(directory)):
            check_directory(directory)
            return directory
    raise CourseError(
        f"model={model!r}: {spoilt[0]} came twice with another content than the hub names by its digest, and was "
        "not kept; a proxy between may be at fault: try another network."
    )


@contextlib.contextmanager
def _said(model: str) -> Iterator[None]:
    """Turn what goes wrong with a download into one sentence."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        yield
    except CourseError:
        raise
    except GatedRepoError as error:
        raise CourseError(
            f"model={model!r} asks for an account and the course uses none; choose an open model."
        ) from error
    except RepositoryNotFoundError as error:
        raise CourseError(
            f"model={model!r} is not on the hub and not a local directory; allowed: 'organism', "
            "a checkpoint directory, or a hub id such as 'gpt2'."
        ) from error
    except Exception as error:  # whatever the hub's client and the HTTP library of the day raise
        raise CourseError(
            f"model={model!r} could not be downloaded ({why(error)}); try again (whole files are kept), or {OFFLINE}."
        ) from error


class Checkpoint(NamedTuple):
    """A loaded Hugging Face model."""

    weights: Any  # PreTrainedModel
    tokenizer: Any
    bos: int  # the token to put first: the tokenizer's BOS, or its EOS where it has none, as GPT-2's
    n_params: int  # tied weights counted once


def load(directory: Path, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Load a checked directory, never from the network.

    Raises
    ------
    CourseError
        If weights are missing, the tokenizer cannot be read, or there is no token to put first.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        # Loaded here, not by the bridge: that would pass over missing weights, and keep every attention
        # pattern.
        weights, report = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise CourseError(
            f"model={str(directory)!r} cannot be loaded ({said[0][:200]}); "
            "give a complete GPT-2- or Llama-like checkpoint with its tokenizer."
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise CourseError(
            f"model={str(directory)!r} lacks {len(missing)} weights, e.g. {missing[0]!r}; copy it again."
        )
    config = weights.config
    candidates = (tokenizer.bos_token_id, tokenizer.eos_token_id, config.bos_token_id, config.eos_token_id)
    bos = next((i for i in candidates if isinstance(i, int) and 0 <= i < config.vocab_size), None)
    if bos is None:
        raise CourseError(
            f"model={str(directory)!r}: its tokenizer has neither a BOS nor an EOS token to put first."
        )
    # Counted now: the bridge adds copies of its own.
    return Checkpoint(weights.to(device).eval(), tokenizer, bos, sum(p.numel() for p in weights.parameters()))


@torch.no_grad()
def shuffle_weights(model: Any, seed: int) -> None:
    """Shuffle the entries of each weight tensor within it, in place; tied tensors stay tied."""
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device gets the same order
    for weight in model.parameters():
        order = torch.randperm(weight.numel(), generator=generator)
        weight.copy_(weight.flatten()[order.to(weight.device)].view_as(weight))
