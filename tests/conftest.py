"""Models and text small enough for every test file."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

SHARED = Path(__file__).parents[2] / "shared" / "data"


class Model(NamedTuple):
    """A model directory and a text file that suits it."""

    directory: Path
    text: Path


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stories() -> Model:
    """A real third-party Llama-like model and real text."""
    model = Model(SHARED / "stories260K", SHARED / "tinystories_sample.txt")
    if not all(path.exists() for path in model):
        pytest.skip("../shared/data/stories260K and tinystories_sample.txt are not here")
    return model


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory) -> Model:
    """A random GPT-2 of 3 blocks whose directory holds only GPT-2's two tokenizer files beside the weights."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel

    directory = tmp_path_factory.mktemp("tiny_gpt2")
    draw = random.Random(0)
    words = "the a cat dog red happy apples Monday ran saw to and über two".split()
    documents = [" ".join(draw.choices(words, k=draw.randint(3, 150))) + "." for _ in range(400)]
    text = directory / "text.txt"
    text.write_text("\n<|endoftext|>\n".join(documents), encoding="utf-8")
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(documents, vocab_size=280, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.save_model(str(directory))
    config = GPT2Config(n_layer=3, n_embd=32, n_head=4, n_positions=64, vocab_size=tokenizer.get_vocab_size(),
                        bos_token_id=0, eos_token_id=0, initializer_range=0.2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(directory)
    return Model(directory, text)


@pytest.fixture(scope="session")
def lab():
    """The organism, whose tokens are whole words, with its world; a test that changes it changes it back."""
    from course_utils.lab import open_lab

    return open_lab("organism", device="cpu", quiet=True)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory):
    """A GPT-2 that learned nothing, with the real one's tokens."""
    if not (SHARED / "gpt2_tokenizer").is_dir():
        pytest.skip("../shared/data/gpt2_tokenizer is not here")
    from transformers import GPT2Config, GPT2LMHeadModel

    from course_utils.lab import open_lab

    folder = tmp_path_factory.mktemp("gpt2")
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=64)).save_pretrained(folder)
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(SHARED / "gpt2_tokenizer" / file, folder)
    return open_lab(folder, device="cpu", quiet=True)


@pytest.fixture(scope="session")
def small_lab(tiny_gpt2):
    """The tiny GPT-2, opened with its text."""
    from course_utils.lab import open_lab

    return open_lab(tiny_gpt2.directory, device="cpu", text=tiny_gpt2.text, quiet=True)


@pytest.fixture(scope="session")
def stories_lab(stories):
    """The real Llama-like model, opened with real stories."""
    from course_utils.lab import open_lab

    return open_lab(stories.directory, device="cpu", text=stories.text, quiet=True)


@pytest.fixture
def closed():
    """Close every figure before and after; another file's tests may have left some open."""
    from matplotlib import pyplot

    pyplot.close("all")
    yield
    pyplot.close("all")


@pytest.fixture
def no_network(monkeypatch) -> list:
    """Cut the network; what was tried is in the list."""
    tried: list = []

    def refuse(*args, **_):
        tried.append(args)
        raise OSError("the network is cut")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


@pytest.fixture
def on_hub(tmp_path) -> Callable[[str], dict]:
    """Run code in a process whose hub is the loopback one, filled; what it puts into ``found`` comes back.

    A process of its own, because the hub's client reads HF_ENDPOINT when it is imported. The code sees ``hub`` and
    ``Fault``; afterwards downloads lie below ``tmp_path / "hf"``, for another process with the same cache.
    """
    start = """
        import json, os
        from hub_contents import *
        from loopback_hub import Fault, running

        found = {}
        with running() as hub:
            os.environ["HF_ENDPOINT"] = hub.url
            fill(hub)
        """
    end = "print(); print(json.dumps(found, default=float))"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "COURSE_"))}
    env = kept | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1",
                  "COURSE_BUILD": str(tmp_path / "build"), "COURSE_CACHE": str(tmp_path / "course")}

    def run(code: str, seconds: float = 240) -> dict:
        inside = textwrap.indent(textwrap.dedent(code), "    ")  # of the with statement
        done = subprocess.run([sys.executable, "-c", "\n".join([textwrap.dedent(start), inside, end])], env=env,
                              cwd=Path(__file__).parent, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1]) | {"output": done.stdout, "errors": done.stderr}

    return run
