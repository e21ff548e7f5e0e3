"""Harvest: positions a second to layer 8 of a model of GPT-2 small's shape, rows of 128.

Against sae-lens' ActivationsStore (its own batches, without the mixing of its buffer) in float32 and under its
autocast, and against the bridge's plain ``run_with_cache``. Quality: how far our activations lie from the exact ones.

    python benchmarks/harvest.py [--quick] [--rounds 5] [--threads 2]
"""

from statistics import median

from harness import Side, alternate, arguments, compare, gpt2_shape, write

HOOK, ROWS, LAYERS, D = "blocks.8.hook_resid_pre", 16, 8, 768
FLOP = LAYERS * 24 * D * D  # a position's products with weights; attention comes on top and is not counted


def main():
    """Measure and write ``build/bench/harvest.json``."""
    args = arguments(__doc__)
    ours, peers = Side("ours", args.threads), Side("peers", args.threads)
    model, rows = gpt2_shape(ours)
    ours("open_model", key="m", model=model, rows=rows)
    peers("open_model", key="m", folder=model)
    for half in (False, True):
        peers("open_store", key=str(half), model="m", hook=HOOK, rows=rows, d=D, half=half)
    same = [side("one_capture", key="m", hook=HOOK, rows=rows) for side in (ours, peers)]
    assert max(abs(a - b) for a, b in zip(*same, strict=True)) < 1e-3, "the sides run different models"

    def rate(side, function, **given):
        found = side(function, **given)
        return found["tokens"] / found["seconds"]

    n = 127 * ROWS
    sides = {
        "ours, bfloat16": lambda: rate(ours, "harvest_seconds", key="m", hook=HOOK, n_tokens=24 * n, precision="auto"),
        "ours, float32": lambda: rate(ours, "harvest_seconds", key="m", hook=HOOK, n_tokens=2 * n, precision="float32"),
        "sae-lens, float32": lambda: rate(peers, "store_seconds", key="False", n_batches=2),
        "sae-lens, autocast": lambda: rate(peers, "store_seconds", key="True", n_batches=2),
        "run_with_cache": lambda: rate(ours, "plain_cache_seconds", key="m", hook=HOOK, n_tokens=n),
    }
    sides["products"] = lambda: ours("product_rates")  # in every round, for a shared machine is not always as fast
    alternate(1, **sides)  # warm up
    found = alternate(args.rounds, **sides)
    deviation = ours("harvest_error", key="m", hook=HOOK, n_tokens=n)
    products = found.pop("products")
    rates = {precision: median(r[precision] for r in products) for precision in products[0]}
    quality = {"relative error of our activations": deviation}
    table = [compare(f"harvest, ours in {o} / {p}", found[f"ours, {o}"], found[p], "pos/s", quality=quality)
             for o in ("bfloat16", "float32") for p in ("sae-lens, float32", "sae-lens, autocast", "run_with_cache")]
    used = {"ours, bfloat16": "bfloat16", "ours, float32": "float32", "sae-lens, float32": "float32"}
    reached = {f"harvest, {side.removeprefix('ours, ')}":
               median(FLOP * rate / r[precision] for rate, r in zip(found[side], products, strict=True))
               for side, precision in used.items()}
    print("fraction of the measured matrix-product rate:", {name: round(x, 3) for name, x in reached.items()}, rates)
    write("harvest", table, {"ours": ours("known"), "peers": peers("known")}, args.threads, roofline=reached,
          product_rates=rates, rounds=found)
    ours.close(), peers.close()


if __name__ == "__main__":
    main()
