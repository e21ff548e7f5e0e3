"""A sweep of 64 toy models of superposition: `course_utils.toy`, all at once, against one instance after the other.

The peer is the plain way: automatic gradients, torch.optim.Adam, fresh batches, one model at a time. Both start from
the same weights, take as many steps on batches as large from the same distribution, and follow the same learning rate.
They alternate, and the median of each side's times counts.

Quality is checked twice: on the *same* batches both must reach the same losses, instance by instance; and in the timed
runs, where each side draws its own batches, the mean of the final losses on common fresh data must agree.

    python benchmarks/toy_sweep.py [--steps 300] [--repeats 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time

import torch

from course_utils import toy
from course_utils.paths import build_dir

INSTANCES, FEATURES, HIDDEN, BATCH, LR = 64, 20, 5, 128, 0.01


def plain(W, b, next_batch, importance, steps):
    """Train one instance; return its weights and its last loss."""
    W, b = torch.nn.Parameter(W.clone()), torch.nn.Parameter(b.clone())
    optimizer = torch.optim.Adam([W, b], lr=LR)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * step / steps)) / 2
        x = next_batch(step)
        loss = (importance * (torch.relu(x @ W.T @ W + b) - x) ** 2).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return W.detach(), b.detach(), loss.item()


def plain_sweep(start, density, importance, steps, seed):
    """Train the instances one after the other, each on batches drawn as one would write it down."""
    weights = []
    for W, b, p in zip(*start, density[:, 0].tolist(), strict=True):
        generator = torch.Generator().manual_seed(seed)

        def draw(_, p=p, generator=generator):
            on = torch.rand(BATCH, FEATURES, generator=generator) < p
            return torch.rand(BATCH, FEATURES, generator=generator) * on

        weights.append(plain(W, b, draw, importance, steps)[:2])
    return toy.Toy(*map(torch.stack, zip(*weights, strict=True)))


def our_sweep(start, density, importance, steps, seed):
    """Train them all at once."""
    draw = toy.batches(density, FEATURES, BATCH, seed=seed)
    return toy.train(start, draw, importance[None], steps=steps, lr=LR).toy


def same_batches(start, density, importance, steps):
    """Return the largest relative difference of the last losses when both sides see the same batches."""
    source = toy.batches(density, FEATURES, BATCH, seed=99)
    data = [source(step) for step in range(steps)]
    ours = toy.train(start, data.__getitem__, importance[None], steps=steps, lr=LR).loss[-1]
    theirs = torch.tensor([plain(start.W[i], start.b[i], lambda step, i=i: data[step][i], importance, steps)[2]
                           for i in range(INSTANCES)])
    return float(((ours - theirs).abs() / theirs).max())


def main():
    """Measure, print and write ``build/bench/toy_sweep.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    density = torch.logspace(0, -1.5, INSTANCES)[:, None]
    importance, start = 0.9 ** torch.arange(float(FEATURES)), toy.new_toys(INSTANCES, FEATURES, HIDDEN, seed=0)
    fresh = toy.sample(density, FEATURES, 8192, generator=torch.Generator().manual_seed(1))
    sides = {"ours": our_sweep, "peer": plain_sweep}
    times, losses = {name: [] for name in sides}, {name: [] for name in sides}
    for sweep in sides.values():  # warm up
        sweep(start, density, importance, 5, 0)
    for repeat in range(args.repeats):
        for name, sweep in sides.items():
            begun = time.perf_counter()
            trained = sweep(start, density, importance, args.steps, 10 + repeat)
            times[name].append(time.perf_counter() - begun)
            losses[name].append(float(toy.losses(trained, fresh, importance[None]).mean()))
    ours, peer = (statistics.median(times[name]) for name in sides)
    mean = {name: statistics.mean(values) for name, values in losses.items()}
    quality = {"largest_relative_difference_on_the_same_batches": same_batches(start, density, importance, args.steps),
               "mean_final_loss": mean, "relative_difference_of_means": abs(mean["ours"] / mean["peer"] - 1)}
    result = {
        "ours": ours, "peer": peer, "ratio": peer / ours, "n": args.repeats, "seconds": times,
        "setting": {"instances": INSTANCES, "features": FEATURES, "hidden": HIDDEN, "batch": BATCH,
                    "steps": args.steps},
        "quality": quality,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": {"processor": platform.machine(), "threads": args.threads},
    }
    path = build_dir() / "bench" / "toy_sweep.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    assert quality["largest_relative_difference_on_the_same_batches"] < 0.01, quality
    assert quality["relative_difference_of_means"] < 0.01, quality


if __name__ == "__main__":
    main()
