"""What the loopback hub serves: GPT-2, an SAE for it and a text, laid out as they are on the real hub, but small.

The model has random weights; what a test needs to know of it is exact all the same. Its residual stream has an outlier
dimension, as GPT-2's has, so that its mean over ``d_model`` is far from 0. The SAE is built, not trained: on *centred*
activations (less that mean) it reconstructs exactly, and what its encoder adds in the direction of the mean, which
nothing in such a training would ever correct, spoils it on any other.
"""

from __future__ import annotations

import io
import json
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors.numpy import save

D, LAYERS, HEADS, CONTEXT = 64, 3, 4, 128
HOOK = "blocks.1.hook_resid_pre"
RELEASE = "gpt2-small-res-jb"
TEXT = "datasets/Skylion007/openwebtext"
REAL_TOKENIZER = Path(__file__).parents[2] / "shared" / "data" / "gpt2_tokenizer"


def texts(n: int) -> list[str]:
    """Return documents of the organism's world."""
    from course_utils.organism import World

    return [document.text for document in islice(World.load().documents(seed=0), n)]


def tokenizer(documents: list[str]) -> dict[str, bytes]:
    """Return GPT-2's real tokenizer files where they are at hand, else those of a small one of the same kind."""
    if REAL_TOKENIZER.is_dir():
        return {name: (REAL_TOKENIZER / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    from tokenizers import ByteLevelBPETokenizer

    small = ByteLevelBPETokenizer()
    small.train_from_iterator(documents, vocab_size=1000, special_tokens=["<|endoftext|>"], show_progress=False)
    vocabulary, merges = (json.loads(small.to_str())["model"][name] for name in ("vocab", "merges"))
    lines = ["#version: 0.2", *(" ".join(merge) if isinstance(merge, list) else merge for merge in merges)]
    return {"vocab.json": json.dumps(vocabulary).encode(), "merges.txt": "\n".join(lines).encode()}


def gpt2(documents: list[str]) -> dict[str, bytes]:
    """Return the files of a model repository with the names and the config of the real ``openai-community/gpt2``."""
    files = tokenizer(documents)
    vocabulary = json.loads(files["vocab.json"])
    end = vocabulary["<|endoftext|>"]
    config = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": end,
        "embd_pdrop": 0.1, "eos_token_id": end, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2", "n_ctx": CONTEXT, "n_embd": D, "n_head": HEADS, "n_layer": LAYERS, "n_positions": CONTEXT,
        "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "vocab_size": len(vocabulary),
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}}
    return files | {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save(weights(len(vocabulary)), {"format": "pt"}),
        "tokenizer_config.json": b'{"model_max_length": 1024}', "README.md": b"---\nlicense: mit\n---\n# GPT-2\n",
        "generation_config.json": json.dumps({"bos_token_id": end, "eos_token_id": end}).encode(),
        "onnx/config.json": b"{}", "64-8bits.tflite": bytes(1000), "pytorch_model.bin": bytes(1000)}


def weights(n_vocabulary: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw GPT-2's tensors under the names of the real file: no prefix, and the causal masks among them."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, by: float = 0.25) -> np.ndarray:
        return (by * rng.standard_normal(shape)).astype(np.float32)

    tensors = {"wte.weight": draw(n_vocabulary, D), "wpe.weight": draw(CONTEXT, D, by=0.1),
               "ln_f.weight": 1 + draw(D), "ln_f.bias": draw(D)}
    tensors["wte.weight"][:, 7] = rng.normal(12, 4, n_vocabulary)  # the outlier
    for i in range(LAYERS):
        block = {"attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, 4 * D), "mlp.c_proj": (4 * D, D)}
        for name, shape in block.items():
            tensors |= {f"h.{i}.{name}.weight": draw(*shape, by=0.15), f"h.{i}.{name}.bias": draw(shape[1])}
        for name in ("ln_1", "ln_2"):
            tensors |= {f"h.{i}.{name}.weight": 1 + draw(D), f"h.{i}.{name}.bias": draw(D)}
        tensors[f"h.{i}.attn.bias"] = np.tril(np.ones((1, 1, CONTEXT, CONTEXT), np.float32))
    return tensors


def sae_files(folder: str, config: dict) -> dict[str, bytes]:
    """Return a folder of a repository of SAEs: its config, the weights, how often each latent fires."""
    sparsity = np.full(2 * D, -0.3, np.float32)
    return {f"{folder}/cfg.json": json.dumps(config).encode(), f"{folder}/sae_weights.safetensors": save(sae()),
            f"{folder}/sparsity.safetensors": save({"sparsity": sparsity}), "README.md": b"---\nlicense: mit\n---\n"}


def res_jb() -> dict[str, bytes]:
    """Return ``gpt2-small-res-jb`` with the config of sae-lens before version 1."""
    return sae_files(HOOK, {
        "model_name": "gpt2-small", "hook_point": HOOK, "hook_point_layer": 1, "hook_point_head_index": None,
        "dataset_path": "Skylion007/openwebtext", "is_dataset_tokenized": False, "context_size": 128,
        "use_cached_activations": False, "d_in": D, "n_batches_in_buffer": 128, "total_training_tokens": 300000000,
        "store_batch_size": 32, "device": "mps", "seed": 42, "dtype": "torch.float32", "d_sae": 2 * D,
        "b_dec_init_method": "geometric_median", "expansion_factor": 2, "from_pretrained_path": None,
        "l1_coefficient": 8e-05, "lr": 0.0004, "lr_scheduler_name": None, "lr_warm_up_steps": 5000,
        "train_batch_size": 4096, "use_ghost_grads": False, "feature_sampling_window": 1000, "log_to_wandb": True,
        "dead_feature_window": 5000, "dead_feature_threshold": 1e-06, "n_checkpoints": 10})


def mlp_tm() -> dict[str, bytes]:
    """Return ``gpt2-small-mlp-tm``, centred and scaled; the factor stands in sae-lens' list."""
    return sae_files("sae_group_gpt2_blocks.1.hook_mlp_out_24576:v0", {
        "model_name": "gpt2", "hook_name": "blocks.1.hook_mlp_out", "hook_layer": 1, "hook_head_index": None, "d_in": D,
        "d_sae": 2 * D, "architecture": "standard", "activation_fn_str": "relu", "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False, "context_size": 512, "prepend_bos": True, "dtype": "torch.float32",
        "device": "cuda", "normalize_activations": "expected_average_only_in", "sae_lens_training_version": "3.9.0",
        "dataset_path": "Skylion007/openwebtext"})


def sae(seed: int = 0) -> dict[str, np.ndarray]:
    """Build the SAE: a turned basis and its negative, so that ReLU loses nothing; see the module's docstring."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.standard_normal((D, D)))[0]
    both, b_dec, unseen = np.concatenate([turned, -turned]), rng.standard_normal(D), 0.3 * rng.standard_normal(2 * D)
    tensors = {"W_enc": both.T + unseen, "b_enc": b_dec.sum() * unseen, "W_dec": both, "b_dec": b_dec,
               "scaling_factor": np.ones(2 * D)}
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


def text(documents: list[str], shards: int = 8) -> dict[str, bytes]:
    """Return a text in Parquet, several files of several row groups, as the hub's converter writes it."""
    import pyarrow
    import pyarrow.parquet

    files, each = {}, len(documents) // shards
    for i in range(shards):
        table = pyarrow.table({"text": documents[i * each : (i + 1) * each]})
        stream = io.BytesIO()
        pyarrow.parquet.write_table(table, stream, row_group_size=100)
        files[f"plain_text/partial-train/{i:04}.parquet"] = stream.getvalue()
    return files


def fill(hub, n_documents: int = 8000) -> None:
    """Put everything into a hub, under the names and at the revisions where the real one has it."""
    documents = texts(n_documents)
    hub.add("openai-community/gpt2", gpt2(documents))
    hub.moved["gpt2"] = "openai-community/gpt2"
    hub.add("jbloom/GPT2-Small-SAEs-Reformatted", res_jb())
    hub.add("tommmcgrath/gpt2-small-mlp-out-saes", mlp_tm())
    # The set itself still consists of archives and a script, which `datasets` runs no more; the hub's copy is Parquet.
    hub.add(TEXT, {"openwebtext.py": b"# a loading script", "README.md": b"---\nlicense: cc0-1.0\n---\n"})
    hub.add(TEXT, text(documents), revision="refs/convert/parquet")
    hub.add("datasets/someone/stories", {"README.md": b"# Stories\n", "data/train.jsonl": "\n".join(
        json.dumps({"text": document}) for document in documents[:400]).encode()})
    hub.add("datasets/someone/numbers", {"train.csv": b"number\n1\n2\n"})
