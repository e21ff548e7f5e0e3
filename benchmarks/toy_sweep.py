"""A sweep of 64 toy models of superposition: `course_utils.toy`, all at once, against one instance after the other.

The peer is the plain way: automatic gradients, torch.optim.Adam, fresh batches, one model at a time. Both start from
the same weights, take as many steps on batches as large from the same distribution, and follow the same learning rate.
They alternate, and the median of each side's times counts.

Quality is checked twice: on the *same* batches both must reach the same losses, instance by instance; and in the timed
runs, where each side draws its own batches, the mean of the final losses on common fresh data must agree.

    python benchmarks/toy_sweep.py [--quick] [--steps 300] [--rounds 5] [--threads 2]
"""

import math
import platform
import statistics
import time

import torch
from harness import alternate, arguments, compare, write

from course_utils import toy

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
    """Measure and write ``build/bench/toy_sweep.json``."""
    args = arguments(__doc__, steps=300)
    torch.set_num_threads(args.threads)
    density = torch.logspace(0, -1.5, INSTANCES)[:, None]
    importance, start = 0.9 ** torch.arange(float(FEATURES)), toy.new_toys(INSTANCES, FEATURES, HIDDEN, seed=0)
    fresh = toy.sample(density, FEATURES, 8192, generator=torch.Generator().manual_seed(1))
    losses = {"ours": [], "peer": []}

    def timed(name, sweep):
        begun = time.perf_counter()
        trained = sweep(start, density, importance, args.steps, 10 + len(losses[name]))
        seconds = time.perf_counter() - begun
        losses[name].append(float(toy.losses(trained, fresh, importance[None]).mean()))
        return seconds

    for sweep in (our_sweep, plain_sweep):  # warm up
        sweep(start, density, importance, 5, 0)
    found = alternate(args.rounds, ours=lambda: timed("ours", our_sweep), peer=lambda: timed("peer", plain_sweep))
    mean = {name: statistics.mean(values) for name, values in losses.items()}
    quality = {"largest relative difference of losses on the same batches":
               same_batches(start, density, importance, args.steps),
               "relative difference of mean final losses": abs(mean["ours"] / mean["peer"] - 1)}
    write("toy_sweep", [compare(f"sweep of {INSTANCES} toy models / one after the other", found["ours"], found["peer"],
                                quality=quality, steps=args.steps)],
          {"python": platform.python_version(), "torch": torch.__version__}, args.threads)
    assert max(quality.values()) < 0.01, quality


if __name__ == "__main__":
    main()
