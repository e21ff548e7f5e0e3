"""Training on stored activations: activations a second, each side training one SAE in turns of a few steps.

At d = 128, width 1,024 on the organism's activations, and at d = 768, width 24,576 on those of a model of GPT-2 small's
shape. Peers: sae-lens' SAETrainer (what its LanguageModelSAETrainingRunner runs; float32, and its autocast),
dictionary_learning's trainers, eai-sparsify's SparseCoder in its trainer's steps. All get the same rows in the same
order, the same batch, rate, warm-up and decay; sae-lens also the same initial weights. Quality: explained variance on
held-out rows after the same steps, and L0.

    python benchmarks/training.py [--quick] [--rounds 5] [--threads 2] [--batch 4096]
"""

from statistics import median

from harness import BUILD, Side, alternate, arguments, compare, gpt2_shape, write

# name: hook, d, width, k, rows to train on, held-out rows, steps in a turn
SIZES = {"small": ("blocks.1.hook_resid_post", 128, 1024, 16, 100_000, 8192, 8),
         "large": ("blocks.8.hook_resid_pre", 768, 24_576, 32, 26_000, 2048, 1)}
PEERS = {"topk": ("sae-lens", "sae-lens, autocast", "dictionary_learning", "eai-sparsify"),
         "batchtopk": ("sae-lens", "sae-lens, autocast", "dictionary_learning"),
         "standard": ("sae-lens", "sae-lens, autocast", "dictionary_learning")}


def measure(ours, peers, args, size, file):
    """Train with all sides in turn; return rows of the table, and our activations a second per flop/s of a product."""
    _, d, width, k, _, _, turn = SIZES[size]
    table, shares = [], {}
    for kind, names in PEERS.items():
        n_samples = args.batch * turn * (args.rounds + 1)
        settings = ours("settings", kind=kind, d=d, width=width, k=k, n_samples=n_samples, batch=args.batch)
        given = {"file": file, "kind": kind, "width": width, "batch": args.batch}
        for step in ("bfloat16", "float32"):
            ours("begin", key=step, k=k, n_samples=n_samples, step=step, **given)
        for name in names:
            peers("begin", key=name, peer=name, settings=settings, **given)
        done = dict.fromkeys(["bfloat16", "float32", *names], 0)

        def steps(name, done=done):
            side = ours if name in ("bfloat16", "float32") else peers
            seconds = side("steps", key=name, first=done[name], n=turn)
            done[name] += turn
            return args.batch / seconds

        sides = {name: lambda name=name: steps(name) for name in done}
        sides["products"] = lambda: ours("product_rates")  # in every round: a shared machine is not always as fast
        alternate(1, **sides)  # warm up; these steps count for the quality
        found = alternate(args.rounds, **sides)
        quality = {name: (ours if name in ("bfloat16", "float32") else peers)("judge", key=name) for name in done}
        shares |= {f"{kind}, {step}": median(a / r[step] for a, r in zip(found[step], found["products"], strict=True))
                   for step in ("bfloat16", "float32")}
        for step, name in [*(("bfloat16", name) for name in names), ("float32", "sae-lens")]:
            table.append(compare(f"{kind}, d={d}, width={width:,}, {step} / {name}", found[step], found[name], "act/s",
                                 quality={"ours": quality[step], "peer": quality[name]}, kind=kind, d=d, width=width,
                                 step=step, peer_name=name))
    return table, shares


def main():
    """Measure and write ``build/bench/training.json``."""
    args = arguments(__doc__, batch=4096)
    ours, peers = Side("ours", args.threads), Side("peers", args.threads)
    model, rows = gpt2_shape(ours)
    ours("open_model", key="large", model=model, rows=rows)
    ours("open_model", key="small", model="organism")
    table, shares = [], {}
    for size, (hook, _, _, _, n, n_heldout, _) in SIZES.items():
        file = str(BUILD / f"activations_{size}.safetensors")
        ours("save_activations", key=size, hook=hook, n_tokens=n + n_heldout, file=file, n_heldout=n_heldout)
        found, shares[size] = measure(ours, peers, args, size, file)
        table += found
    _, d, width, *_ = SIZES["large"]
    # The plain step makes five products with all latents; ours makes five for standard, one for the topk families.
    plain = {f"training, {name}": 10 * d * width * share for name, share in shares["large"].items()}
    made = {name: share * (1 if "standard" in name else 0.2) for name, share in plain.items()}
    print("fraction of the measured matrix-product rate, by the plain step's products:", plain, "by those made:", made)
    write("training", table, {"ours": ours("known"), "peers": peers("known")}, args.threads, roofline=plain,
          roofline_of_products_made=made, batch=args.batch)
    ours.close(), peers.close()


if __name__ == "__main__":
    main()
