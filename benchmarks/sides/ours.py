"""The course's side of every measurement, and what both sides are given: a model, rows of tokens, activations."""

import time
from pathlib import Path
from types import SimpleNamespace

import torch
from protocol import peak_memory, serve, versions
from safetensors.torch import load_file, save_file

from course_utils import evaluate, harvest, load_sae, open_lab, save_sae, train_sae
from course_utils.dictionaries import new_config, new_parts, training
from course_utils.dictionaries.recipes import Recipe
from course_utils.lab.text import Document

state = SimpleNamespace(labs={}, runs={}, data={})


class Rows:
    """Rows of tokens in place of a text: what the sae-lens side reads, read by the course."""

    name, world = "rows of tokens", None

    def __init__(self, rows):
        self.rows = rows

    def documents(self, tokenizer, split, seed, labels):
        """Yield all rows, cut at their BOS; the last tenth is held out."""
        cut = len(self.rows) * 9 // 10
        for row in self.rows[:cut] if split == "train" else self.rows[cut:]:
            yield Document(row[1:].tolist(), "")


def make_gpt2(folder):
    """Write a model of GPT-2 small's shape with random weights, and a tokenizer that nobody will ask."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    if not (Path(folder) / "tokenizer.json").is_file():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
        tokenizer = Tokenizer(models.WordLevel({"<|endoftext|>": 50256, "a": 0}, unk_token="a"))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>",
                                ).save_pretrained(folder)


def make_rows(file, model, n_rows, width):
    """Write rows of tokens: documents of the organism's world behind one another, or words as frequent as Zipf's."""
    if model == "organism":
        lab, stream = open_lab(quiet=True), []
        for document in lab.documents("train"):
            stream += [lab.bos, *document.ids]
            if len(stream) >= n_rows * width:
                break
        rows = torch.tensor(stream[: n_rows * width]).view(n_rows, width)
    else:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.multinomial(1 / torch.arange(1, 50_257.0), n_rows * width, True, generator=generator)
        rows = torch.randperm(50_256, generator=generator)[drawn].view(n_rows, width)
        rows[:, 0] = 50_256
    save_file({"rows": rows}, file)


def open_model(key, model, rows=None):
    """Open a model, on its own text or on rows of tokens."""
    lab = open_lab(model, device="cpu", quiet=True, text=None)
    if rows is not None:
        lab.text = Rows(load_file(rows)["rows"])
    state.labs[key] = lab


def harvest_seconds(key, hook, n_tokens, precision):
    """Time a harvest."""
    begun = time.perf_counter()
    acts = harvest(state.labs[key], hook, n_tokens, precision=precision)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "tokens": len(acts), "bytes": peak_memory()}


def plain_cache_seconds(key, hook, n_tokens):
    """Time ``run_with_cache`` of the bridge over the same batches, as a beginner would write it."""
    lab, begun, n = state.labs[key], time.perf_counter(), 0
    for batch in lab.batches(n_tokens):
        with torch.no_grad():
            cache = lab.model.run_with_cache(batch.tokens, names_filter=hook)[1]
        n += int(batch.mask.sum())
        cache[hook][batch.mask].clone()
    return {"seconds": time.perf_counter() - begun, "tokens": n}


def harvest_error(key, hook, n_tokens):
    """Return how far the fast harvest lies from the exact one, relative to the spread of the activations."""
    fast, exact = (harvest(state.labs[key], hook, n_tokens, precision=p) for p in ("auto", "float32"))
    x = exact.x[exact.usable]
    return float((fast.x[exact.usable] - x).norm() / (x - x.mean(0)).norm())


def organism():
    """Return where the organism lies, and its BOS."""
    from course_utils.lab.models import find_model

    return {"folder": str(find_model("organism")), "bos": open_lab(quiet=True).bos}


def save_activations(key, hook, n_tokens, file, n_heldout, precision="auto"):
    """Write activations for all sides, scaled to a mean norm of sqrt(d), BOS left out."""
    acts = harvest(state.labs[key], hook, n_tokens, precision=precision)
    x = acts.x[acts.usable]
    x = x * (x.shape[1] ** 0.5 / x.norm(dim=1).mean())
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    save_file({"train": x[n_heldout:].contiguous(), "heldout": x[:n_heldout].contiguous()}, file)
    return list(x.shape)


def one_capture(key, hook, rows):
    """Return numbers that tell whether both sides run the same model."""
    x = state.labs[key].capture(load_file(rows)["rows"][:2], hook)
    return x[:, -1, :8].flatten().tolist()


def _recipe(kind, width, k, n_samples, batch, step="auto"):
    return Recipe(kind, width, k, None, None, n_samples, batch, 0, 256, {}, step)


def settings(kind, d, width, k, n_samples, batch):
    """Say with what we train, in the library's words, for the other sides."""
    from sae_lens.registry import get_sae_training_class

    recipe = _recipe(kind, width, k, n_samples, batch)
    config = new_config(recipe, get_sae_training_class(kind)[1], d)
    sae = {name: getattr(config, name) for name in recipe.family_settings(d) if hasattr(config, name)}
    return {"lr": recipe.rate(d), "warm_up": recipe.warm_up, "decay": recipe.decay, "dead_window": recipe.dead_window,
            "steps": recipe.n_steps, "sae": sae}


def begin(key, file, kind, width, k, n_samples, batch, step):
    """Begin a training on stored activations."""
    data = state.data.setdefault(file, load_file(file))
    recipe = _recipe(kind, width, k, n_samples, batch, step)
    parts = new_parts(recipe, data["train"].mean(0), torch.device("cpu"))
    state.runs[key] = training.Trainer(recipe, parts, 1.0), data, batch


def steps(key, first, n):
    """Time ``n`` steps; batches are cut from the rows in order, as they were shuffled when stored."""
    trainer, data, batch = state.runs[key]
    begun = time.perf_counter()
    for i in range(first, first + n):
        start = i * batch % (len(data["train"]) - batch + 1)
        trainer.step(data["train"][start : start + batch], logging=False)
    return (time.perf_counter() - begun) / n


@torch.no_grad()
def judge(key):
    """Return held-out explained variance and L0 with the selection of training."""
    trainer, data, batch = state.runs.pop(key)
    sae, x = trainer.sae, data["heldout"]
    residual, active = 0.0, 0
    for rows in x.split(min(batch, 1024)):
        latents = sae.encode(rows)
        residual, active = residual + (sae.decode(latents) - rows).square().sum(), active + (latents != 0).sum()
    return {"explained_variance": float(1 - residual / (x - x.mean(0)).square().sum()), "l0": float(active / len(x)),
            "bytes": peak_memory()}


def text_to_sae(key, hook, n_tokens, n_samples, kind, width, k, batch, precision, directory=None):
    """Time the whole way: harvest, then train."""
    begun = time.perf_counter()
    acts = harvest(state.labs[key], hook, n_tokens, precision=precision, labels=False)
    run = train_sae(acts, width, k, kind, n_samples=n_samples, batch_size=batch)
    seconds = time.perf_counter() - begun
    if directory:
        save_sae(run.sae, directory)
    return seconds


def quality(key, directory, n_tokens, hook):
    """Judge a saved SAE of any side on held-out text."""
    found = evaluate(state.labs[key], load_sae(directory), n_tokens, hook=hook, n_boot=200)
    return {name: getattr(found, name).value for name in ("explained_variance", "l0", "ce_clean", "ce_spliced", "dead")}


def grow(hook, n_tokens, width, directory, model="organism"):
    """Harvest to a disk and train on it; return seconds of each and the peak of memory that is not a mapped file."""
    import threading

    lab = state.labs.get(model) or open_lab(model, device="cpu", quiet=True)
    state.labs[model], peak, running = lab, [0], [True]

    def watch():
        while running[0]:
            status = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], 1024 * int(status.split("RssAnon:")[1].split()[0]))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    times = [time.perf_counter()]
    acts = harvest(lab, hook, n_tokens, directory=directory, labels=False)
    times.append(time.perf_counter())
    if width:
        train_sae(acts, width, 16, n_samples=n_tokens, batch_size=1024)
    times.append(time.perf_counter())
    running[0] = False
    watcher.join()
    return {"harvest": times[1] - times[0], "train": times[2] - times[1], "bytes": peak[0]}


def product_rates():
    """Return the machine's best matrix-product rate in flop/s, by precision, at shapes that the course uses."""
    found = {}
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        rates = []
        for m, k, n in ((2048, 768, 3072), (4096, 768, 24_576), (2048, 2048, 2048)):
            a, b, out = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype), torch.empty(m, n, dtype=dtype)
            torch.mm(a, b, out=out)
            times = []
            for _ in range(5):
                begun = time.perf_counter()
                torch.mm(a, b, out=out)
                times.append(time.perf_counter() - begun)
            rates.append(2 * m * k * n / sorted(times)[2])
        found[name] = max(rates)
    return found


def known():
    """Return versions."""
    return versions("torch", "numpy", "transformers", "transformer-lens", "sae-lens")


if __name__ == "__main__":
    serve(**{name: value for name, value in globals().items() if callable(value) and not name.startswith("_")})
