"""How cost grows: seconds against tokens, width and layers; peak memory against tokens. Ours alone, on the organism.

Every point is a harvest to a disk and a training on it, the median of three; a slope of 1 on log axes is proportional.
Memory is what is not a mapped file: the harvest itself is mapped, and the system may drop it at any time.

    python benchmarks/growth.py [--quick] [--rounds 3] [--threads 2]
"""

import math
import shutil
from statistics import median

from harness import BUILD, Side, arguments, write

HOOK, TOKENS, WIDTH = "blocks.1.hook_resid_post", 25_000, 512


def slope(points):
    """Fit a line on log axes."""
    x, y = ([math.log(v) for v in column] for column in zip(*points, strict=True))
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def main():
    """Measure and write ``build/bench/growth.json``."""
    args = arguments(__doc__, rounds=3)
    folder, factors = BUILD / "growing", (1, 4, 16) if args.quick else (1, 2, 4, 8, 16)
    usual = {"hook": HOOK, "n_tokens": TOKENS, "width": WIDTH, "directory": str(folder)}

    def point(rounds, fresh=False, **given):
        found = []
        for _ in range(rounds):
            side = Side("ours growing", args.threads) if fresh else shared
            shutil.rmtree(folder, ignore_errors=True)
            found.append(side("grow", **usual | given))
            if fresh:
                side.close()
        return {key: median(f[key] for f in found) for key in found[0]}

    shared = Side("ours", args.threads)
    shutil.rmtree(folder, ignore_errors=True)
    shared("grow", **usual)  # warm up
    curves = {"tokens": {TOKENS * f: point(args.rounds, n_tokens=TOKENS * f) for f in factors},
              "width": {WIDTH * f: point(args.rounds, width=WIDTH * f, n_tokens=2 * TOKENS) for f in factors},
              "layers": {n: point(args.rounds, hook=f"blocks.{n - 1}.hook_resid_post", n_tokens=4 * TOKENS, width=0)
                         for n in (1, 2, 3, 4)}}
    # A process of its own for each, because a peak never falls.
    memory = {TOKENS * f: point(1, fresh=True, n_tokens=TOKENS * f)["bytes"] for f in factors}
    slopes = {"harvest by tokens": slope([(n, p["harvest"]) for n, p in curves["tokens"].items()]),
              "training by tokens": slope([(n, p["train"]) for n, p in curves["tokens"].items()]),
              "training by width": slope([(n, p["train"]) for n, p in curves["width"].items()]),
              "harvest by layers": slope([(n, p["harvest"]) for n, p in curves["layers"].items()]),
              "memory by tokens": slope(list(memory.items()))}
    for name, value in slopes.items():
        print(f"{name:24s} slope {value:.2f}")
    print("peak memory, MB:", {n: round(b / 1e6) for n, b in memory.items()})
    write("growth", [], {"ours": shared("known")}, args.threads, curves=curves, memory=memory, slopes=slopes)
    shared.close()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
