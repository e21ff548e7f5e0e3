"""Writing under steering: 64 texts at once with a cache, against one text after the other.

Everything runs on the embedded model with a push of half the residual stream's length at the middle layer. Each text
has 32 tokens behind a prompt of a few. The loop is measured twice: with the same cache (what batching alone gives), and
with the whole context run anew for every token (how `generate` worked before, and how hooks are mostly written).

Quality: both sides get the same random numbers, so they must write the same texts; a rounding may turn a token here
and there, and the share of equal texts is reported.

    python benchmarks/writing.py [--quick] [--rounds 5] [--batch 64] [--threads 2]
"""

import platform
import time

import torch
from harness import alternate, arguments, compare, write

from course_utils import open_lab, random_directions, steer
from course_utils.interventions import sample

PROMPT, TOKENS = "The weather in the", 32


def main():
    """Measure and write ``build/bench/writing.json``."""
    args = arguments(__doc__, batch=64)
    torch.set_num_threads(args.threads)
    lab = open_lab("organism", quiet=True)
    hook = lab.middle_hook
    x = lab.capture(lab.encode(PROMPT), hook)[0, 1:]
    (direction,) = random_directions(lab.d_model, 1)
    scale = 0.5 * float(x.norm(dim=1).mean())
    draws = torch.rand(args.batch, TOKENS, generator=torch.Generator().manual_seed(1))
    texts = {}

    def at_once():
        begun = time.perf_counter()
        with steer(lab, hook, direction, scale):
            texts["at once"] = sample(lab, PROMPT, TOKENS, n=args.batch, draws=draws).continuations()
        return time.perf_counter() - begun

    def one_by_one(name, cache):
        begun, found = time.perf_counter(), []
        with steer(lab, hook, direction, scale):
            for row in draws.split(1):
                found += sample(lab, PROMPT, TOKENS, cache=cache, draws=row).continuations()
        texts[name] = found
        return time.perf_counter() - begun

    at_once()
    found = alternate(args.rounds, ours=at_once, cached=lambda: one_by_one("cached", True),
                      anew=lambda: one_by_one("anew", False))
    same = {name: sum(a == b for a, b in zip(texts["at once"], texts[name], strict=True)) / args.batch
            for name in ("cached", "anew")}
    rows = [compare(f"{args.batch} steered texts at once / one by one, context run anew", found["ours"], found["anew"],
                    quality={"share of equal texts": same["anew"]}),
            compare(f"{args.batch} steered texts at once / one by one, with a cache", found["ours"], found["cached"],
                    quality={"share of equal texts": same["cached"]})]
    write("writing", rows, {"python": platform.python_version(), "torch": torch.__version__}, args.threads)
    assert min(same.values()) > 0.9, same


if __name__ == "__main__":
    main()
