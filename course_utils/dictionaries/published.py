"""SAEs that others have published: found in sae-lens' list by name, fetched from the hub once, read from the cache."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from course_utils.dictionaries.shelf import FILES, saes
from course_utils.errors import CourseError, one_of
from course_utils.lab import Lab
from course_utils.lab.hub import drop_spoilt, hub_client, hub_error, why
from course_utils.paths import prefetched

_HOOK = re.compile(r"blocks\.(\d+)\.(?:\w+\.)?hook_(?:resid_pre|resid_mid|resid_post|attn_out|mlp_out|z)\b")


class _Pickled(Exception):
    """Somebody wanted to read a pickle, which may run any code."""


def load(library: Any, releases: Mapping[str, Any], name: str, device: str) -> Any:
    """Read a published SAE from the cache, else from the hub.

    Parameters
    ----------
    library
        ``sae_lens.SAE``.
    releases
        sae-lens' list of releases, by name.
    name
        ``"<release>/<id>"``.
    device
        Where to put it.

    Raises
    ------
    CourseError
        If it is not in the list, not in the cache and the hub is out of reach, or it is a pickle.
    """
    release, sae_id = _listed(releases, name)

    def read(offline: bool = False, **how: Any) -> Any:
        with quiet(), hub_client(offline):
            return library.from_pretrained(release, sae_id, device=device, **how)

    repository = releases[release].repo_id
    _drop_spoilt(repository)
    try:
        return read(offline=True)
    except _Pickled as error:
        raise _pickled(name) from error
    except Exception as error:  # nothing there, a part of it, or something damaged: fetch what is to be had
        damaged = not isinstance(error, OSError)
    if reason := hub_error():
        raise CourseError(f"name={name!r} is on the hub, which cannot be reached ({reason}); open it once while "
                          "online: the download is kept. Or take one of the course's: ready_sae(lab).")
    for _ in range(2):
        try:
            sae, failure = read(force_download=damaged), None
        except _Pickled as error:
            raise _pickled(name) from error
        except CourseError:
            raise
        except Exception as error:  # whatever the HTTP library, safetensors and the loaders of 15 formats raise
            failure = error
        if not (spoilt := _drop_spoilt(repository)):
            break
    if spoilt:
        raise CourseError(f"name={name!r}: {spoilt[0]} came twice with another content than the hub names by its "
                          "digest, and was not kept; a proxy between may be at fault: try another network.")
    if failure:
        raise CourseError(f"name={name!r} could not be downloaded or read ({why(failure)}); try again, or take one of "
                          "the course's: ready_sae(lab).") from failure
    return sae


def _listed(releases: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return release and id of a name, refusing those that are not listed."""
    release, _, sae_id = name.partition("/")
    if release not in releases:
        near = difflib.get_close_matches(release, releases, n=1, cutoff=0.0)[0]
        raise CourseError(f"name={name!r} is no folder with a saved SAE (cfg.json, sae_weights.safetensors); ready "
                          f"ones: {', '.join(saes()) or 'none'}; nearest of the published releases: {near!r}.")
    ids = [*releases[release].saes_map]
    if not sae_id:
        raise CourseError(f"name={name!r} is a release of {len(ids)} SAEs; name one of them, e.g. '{name}/{ids[0]}'.")
    if sae_id not in ids:
        raise one_of(f"id of an SAE in release {release!r}", sae_id, ids)
    return release, sae_id


def _drop_spoilt(repository: str) -> list[str]:
    from huggingface_hub import constants

    with hub_client():
        return drop_spoilt(Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}")


def _pickled(name: str) -> CourseError:
    return CourseError(f"name={name!r} is published as a pickle, which may run any code and is never opened here; "
                       "choose another release.")


@contextmanager
def quiet() -> Iterator[None]:
    """Load no pickle, and leave out advice on how to load the model: `reading` sees to that."""

    def refuse(*_: Any, **__: Any) -> None:
        raise _Pickled

    with warnings.catch_warnings(), patch.object(torch, "load", refuse):
        warnings.simplefilter("ignore", UserWarning)
        yield


def published_saes(lab: Lab, hook: str | None = None) -> list[str]:
    """List the SAEs for a lab's model that `load_sae` can open now: the shipped ones, then those of sae-lens' list.

    Parameters
    ----------
    lab
        The opened model.
    hook
        Only those at this hook; behind a block and before the next one is the same place.

    Returns
    -------
    list of str
        Names for `load_sae`; empty where nobody has published one. In a folder that ``course prefetch`` filled, or
        without a network, those that were fetched.
    """
    from course_utils.dictionaries import releases

    shipped = [name for name, card in saes().items()
               if card["weights"] == lab.fingerprint and hook in (None, card["hook"])]
    listed, names = releases(), listed_saes(lab, hook)
    if names and (prefetched() or hub_error()):
        with hub_client(offline=True):
            names = [name for name in names if _cached(listed, name)]
    return shipped + names


def listed_saes(lab: Lab, hook: str | None = None) -> list[str]:
    """List what sae-lens lists for a lab's model, wherever it is; parameters as of `published_saes`."""
    from course_utils.dictionaries import releases

    return [f"{release}/{sae_id}" for release, of in releases().items()
            if of.conversion_func is None and _plain(of.model) == _plain(lab.name)  # sae-lens' own format: no pickles
            for sae_id in of.saes_map if hook is None or _same_place(hook, sae_id)]


def _plain(model: str) -> str:
    """Bring a model's names on the hub and in the list to one form."""
    name = model.rpartition("/")[2].lower()
    return {"gpt2": "gpt2-small"}.get(name, name)


def _same_place(hook: str, sae_id: str) -> bool:
    found = _HOOK.match(sae_id)
    return bool(found) and _place(hook) == _place(found[0])


def _place(hook: str) -> str:
    """Give what stands between two blocks one name: it is behind the one, and before the other."""
    behind = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", hook)
    return f"blocks.{int(behind[1]) + 1}.hook_resid_pre" if behind else hook


def _cached(releases: Mapping[str, Any], name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    release, _, sae_id = name.partition("/")
    listed = releases[release]
    return all(isinstance(try_to_load_from_cache(listed.repo_id, f"{listed.saes_map[sae_id]}/{file}"), str)
               for file in FILES)
