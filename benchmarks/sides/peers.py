"""The peers' side: sae-lens, dictionary_learning and eai-sparsify, each used as its documentation says."""

import time
import warnings
from types import SimpleNamespace

import torch
from protocol import peak_memory, serve, versions
from safetensors.torch import load_file

warnings.filterwarnings("ignore")
state = SimpleNamespace(models={}, stores={}, runs={}, data={})


# --- sae-lens ---


def open_model(key, folder):
    """Open a GPT-2 as sae-lens' default class, a HookedTransformer with weights as they are."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    from transformers import GPT2LMHeadModel

    hf = GPT2LMHeadModel.from_pretrained(folder)
    c = hf.config
    config = HookedTransformerConfig(
        n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, d_head=c.n_embd // c.n_head, n_heads=c.n_head,
        d_mlp=c.n_inner or 4 * c.n_embd, d_vocab=c.vocab_size, act_fn="gelu_new", normalization_type="LN", device="cpu",
        eps=c.layer_norm_epsilon)
    model = HookedTransformer(config)
    model.load_state_dict(convert_gpt2_weights(hf, config), strict=False)
    state.models[key] = model.eval()


def one_capture(key, hook, rows):
    """Return numbers that tell whether both sides run the same model."""
    with torch.no_grad():
        x = state.models[key].run_with_cache(load_file(rows)["rows"][:2], names_filter=hook)[1][hook]
    return x[:, -1, :8].flatten().tolist()


def _dataset(rows):
    from datasets import Dataset

    return Dataset.from_dict({"tokens": load_file(rows)["rows"].tolist()})


def _config(hook, rows, sae, n_samples, batch, half, bos, **rest):
    from sae_lens.config import LanguageModelSAERunnerConfig, LoggingConfig

    return LanguageModelSAERunnerConfig(
        sae=sae, model_name="given", hook_name=hook, dataset_path="given", context_size=128, prepend_bos=True,
        store_batch_size_prompts=16, n_batches_in_buffer=64, train_batch_size_tokens=batch, training_tokens=n_samples,
        exclude_special_tokens=[bos], autocast_lm=half, autocast=half, device="cpu", n_checkpoints=0,
        checkpoint_path=None, output_path=None, verbose=False, logger=LoggingConfig(log_to_wandb=False), **rest)


def open_store(key, model, hook, rows, d, half):
    """Open sae-lens' ActivationsStore."""
    from sae_lens import ActivationsStore, StandardTrainingSAEConfig

    sae = StandardTrainingSAEConfig(d_in=d, d_sae=4 * d)
    config = _config(hook, rows, sae, 10**6, 4096, half, bos=50256)
    state.stores[key] = ActivationsStore.from_config(state.models[model], config, override_dataset=_dataset(rows))


def store_seconds(key, n_batches):
    """Time the store's own batches; the mixing of its buffer, which comes on top, is left out in its favour."""
    begun, n = time.perf_counter(), 0
    for _ in range(n_batches):
        n += len(state.stores[key].get_filtered_llm_batch())
    return {"seconds": time.perf_counter() - begun, "tokens": n, "bytes": peak_memory()}


def run_runner(model, hook, rows, settings, kind, d, width, batch, half, bos, directory=None):
    """Time sae-lens' LanguageModelSAETrainingRunner."""
    from sae_lens import LanguageModelSAETrainingRunner
    from sae_lens.registry import get_sae_training_class

    torch.manual_seed(0)
    sae = get_sae_training_class(kind)[1](d_in=d, d_sae=width, **settings["sae"],
                                          normalize_activations="expected_average_only_in")
    config = _config(
        hook, rows, sae, settings["steps"] * batch, batch, half, bos, lr=settings["lr"], lr_end=settings["lr"],
        lr_warm_up_steps=settings["warm_up"], lr_decay_steps=settings["decay"], n_batches_for_norm_estimate=2,
        dead_feature_window=settings["dead_window"])
    runner = LanguageModelSAETrainingRunner(config, override_dataset=_dataset(rows), override_model=state.models[model])
    # Where ours starts; the runner would start b_dec at zero and lose the comparison of quality in so short a training.
    first = runner.activations_store.get_filtered_llm_batch()
    runner.sae.b_dec.data.copy_(first.mean(0) * d**0.5 / first.norm(dim=1).mean())
    begun = time.perf_counter()
    trained = runner.run()
    seconds = time.perf_counter() - begun
    if directory:
        trained.save_inference_model(directory)
    return seconds


class SaeLens:
    """SAETrainer, which is what the runner runs, fed from memory; from the same initial weights as ours."""

    def __init__(self, data, kind, width, batch, settings, half=False):
        from sae_lens import SAETrainer
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.registry import get_sae_training_class

        training_class, config = get_sae_training_class(kind)
        torch.manual_seed(0)
        sae = training_class(config(d_in=data["train"].shape[1], d_sae=width, **settings["sae"]))
        sae.b_dec.data.copy_(data["train"].mean(0))
        self.trainer = SAETrainer(
            SAETrainerConfig(
                total_training_samples=settings["steps"] * batch, train_batch_size_samples=batch, lr=settings["lr"],
                lr_end=settings["lr"], lr_warm_up_steps=settings["warm_up"], lr_decay_steps=settings["decay"],
                dead_feature_window=settings["dead_window"], autocast=half, logger=LoggingConfig(log_to_wandb=False)),
            sae, iter(()))

    def step(self, i, x):
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    def reconstruct(self, x):
        latents = self.trainer.sae.encode(x)
        return self.trainer.sae.decode(latents), latents


class SaeLensHalf(SaeLens):
    """The same with the library's autocast to bfloat16."""

    def __init__(self, *given):
        super().__init__(*given, half=True)


# --- dictionary_learning ---


class DictionaryLearning:
    """Its trainers' ``update``, which is what ``trainSAE`` calls for every batch."""

    def __init__(self, data, kind, width, batch, settings):
        from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
        from dictionary_learning.trainers.standard import StandardTrainer
        from dictionary_learning.trainers.top_k import TopKTrainer

        given = {"steps": settings["steps"], "activation_dim": data["train"].shape[1], "dict_size": width, "layer": 0,
                 "lm_name": "given", "lr": settings["lr"], "warmup_steps": settings["warm_up"], "seed": 0,
                 "device": "cpu", "decay_start": settings["steps"] - max(1, settings["decay"])}
        if kind == "standard":
            self.trainer = StandardTrainer(**given, l1_penalty=settings["sae"]["l1_coefficient"],
                                           sparsity_warmup_steps=settings["sae"]["l1_warm_up_steps"] or None)
        else:
            trainer = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer}[kind]
            self.trainer = trainer(**given, k=int(settings["sae"]["k"]))

    def step(self, i, x):
        self.trainer.update(i, x)

    def reconstruct(self, x):
        how = {} if type(self.trainer).__name__ == "StandardTrainer" else {"use_threshold": False}
        latents = self.trainer.ae.encode(x, **how)
        return self.trainer.ae.decode(latents), latents


# --- eai-sparsify ---


class Sparsify:
    """Its SparseCoder in the steps of its Trainer (loss fvu, optimizer adam), which takes no stored activations."""

    def __init__(self, data, kind, width, batch, settings):
        from sparsify import SparseCoder, SparseCoderConfig
        from transformers import get_linear_schedule_with_warmup

        torch.manual_seed(0)
        config = SparseCoderConfig(num_latents=width, k=int(settings["sae"]["k"]))
        self.sae = SparseCoder(data["train"].shape[1], config, dtype=torch.float32)
        self.sae.b_dec.data = data["train"][:batch].mean(0)
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=settings["lr"])
        self.schedule = get_linear_schedule_with_warmup(self.adam, settings["warm_up"], settings["steps"])
        self.since_fired = torch.zeros(width, dtype=torch.long)

    def step(self, i, x):
        self.sae.set_decoder_norm_to_unit_norm()
        out = self.sae(x=x, y=x, total_variance=(x - x.mean(0)).pow(2).sum())
        out.fvu.backward()
        if self.sae.cfg.normalize_decoder:
            self.sae.remove_gradient_parallel_to_decoder_directions()
        self.adam.step()
        self.adam.zero_grad()
        self.schedule.step()
        fired = torch.zeros_like(self.since_fired, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        self.since_fired += len(x)
        self.since_fired[fired] = 0

    def reconstruct(self, x):
        acts, indices, _ = self.sae.encode(x)
        return self.sae.decode(acts, indices), acts


PEERS = {"sae-lens": SaeLens, "sae-lens, autocast": SaeLensHalf, "dictionary_learning": DictionaryLearning,
         "eai-sparsify": Sparsify}


def begin(key, peer, file, kind, width, batch, settings):
    """Begin a training on stored activations."""
    data = state.data.setdefault(file, load_file(file))
    state.runs[key] = PEERS[peer](data, kind, width, batch, settings), data, batch


def steps(key, first, n):
    """Time ``n`` steps on the same batches as ours."""
    peer, data, batch = state.runs[key]
    begun = time.perf_counter()
    for i in range(first, first + n):
        start = i * batch % (len(data["train"]) - batch + 1)
        peer.step(i, data["train"][start : start + batch])
    return (time.perf_counter() - begun) / n


@torch.no_grad()
def judge(key):
    """Return held-out explained variance and L0 with the selection of training."""
    peer, data, batch = state.runs.pop(key)
    x, residual, active = data["heldout"], 0.0, 0
    for rows in x.split(min(batch, 1024)):
        reconstruction, latents = peer.reconstruct(rows)
        residual, active = residual + (reconstruction - rows).square().sum(), active + (latents != 0).sum()
    return {"explained_variance": float(1 - residual / (x - x.mean(0)).square().sum()), "l0": float(active / len(x)),
            "bytes": peak_memory()}


def known():
    """Return versions."""
    return versions("torch", "numpy", "transformers", "transformer-lens", "sae-lens", "dictionary-learning",
                    "eai-sparsify")


if __name__ == "__main__":
    serve(**{name: value for name, value in globals().items() if callable(value) and not name.startswith("_")})
