"""From text to a trained SAE: ``harvest`` and ``train_sae`` against sae-lens' LanguageModelSAETrainingRunner.

At d = 128, width 1,024 on the organism, and at d = 768, width 6,144 on a model of GPT-2 small's shape; batchtopk,
batches of 4,096. Both read the same text, leave BOS out of the training, and train on as many samples with the same
rates. Ours once as it is used (three passes over a third of the text) and once with every token seen a single time.
Quality: both SAEs judged by the course on held-out text: explained variance, and what splicing adds to the loss. (The
large model's weights are random, so its losses only show that nothing breaks.)

    python benchmarks/end_to_end.py [--quick] [--rounds 5] [--threads 2]
"""

from harness import BUILD, Side, alternate, arguments, compare, write

BATCH = 4096
# name: hook, d, width, k, samples, BOS, tokens to judge on
SIZES = {"small": ("blocks.1.hook_resid_post", 128, 1024, 16, 40 * BATCH, 20_000),
         "large": ("blocks.8.hook_resid_pre", 768, 6144, 32, 8 * BATCH, 2000)}


def measure(ours, peers, args, size, bos, rows, peers_too):
    """Return the table's rows for one size."""
    hook, d, width, k, n, n_judge = SIZES[size]
    settings = ours("settings", kind="batchtopk", d=d, width=width, k=k, n_samples=n, batch=BATCH)
    folder = str(BUILD / "saes" / size)

    both = {"hook": hook, "kind": "batchtopk", "width": width, "batch": BATCH}

    def our_way(name, passes):
        return ours("text_to_sae", key=size, n_tokens=n // passes, n_samples=n, k=k, precision="bfloat16",
                    directory=f"{folder}-{name}", **both)

    def their_way(half):
        return peers("run_runner", model=size, rows=rows, settings=settings, d=d, half=half, bos=bos,
                     directory=f"{folder}-peer {half}", **both)

    sides = {"three passes": lambda: our_way("three passes", 3), "one pass": lambda: our_way("one pass", 1),
             **{f"peer {half}": lambda half=half: their_way(half) for half in peers_too}}
    our_way("one pass", 3)  # warm up
    found = alternate(args.rounds, **sides)
    judged = {name: ours("quality", key=size, directory=f"{folder}-{name}", n_tokens=n_judge, hook=hook)
              for name in sides}
    return [compare(f"text to SAE, d={d}, width={width:,}, {way} / runner{', autocast' * half}", found[way],
                    found[f"peer {half}"], quality={"ours": judged[way], "peer": judged[f"peer {half}"]}, samples=n)
            for half in peers_too for way in ("three passes", "one pass")]


def main():
    """Measure and write ``build/bench/end_to_end.json``."""
    args = arguments(__doc__)
    ours, peers = Side("ours", args.threads), Side("peers", args.threads)
    organism, gpt2 = ours("organism"), str(BUILD / "gpt2shape")
    ours("make_gpt2", folder=gpt2)
    table = []
    models = {"small": (organism["folder"], organism["bos"], 2600), "large": (gpt2, 50_256, 500)}
    for size, (model, bos, n_rows) in models.items():
        rows = str(BUILD / f"rows_{size}.safetensors")
        name, own_text = ("organism", None) if size == "small" else (gpt2, rows)
        ours("make_rows", file=rows, model=name, n_rows=n_rows, width=128)
        ours("open_model", key=size, model=name, rows=own_text)
        peers("open_model", key=size, folder=model)
        table += measure(ours, peers, args, size, bos, rows, (False, True) if size == "small" else (False,))
    write("end_to_end", table, {"ours": ours("known"), "peers": peers("known")}, args.threads)
    ours.close(), peers.close()


if __name__ == "__main__":
    main()
