"""Scores: AUROC and F1 of every unit for every concept, thresholds chosen on one split and scored on the other.

The peer is a loop over scikit-learn: for every unit and concept `roc_auc_score` and `precision_recall_curve` on one
split, `roc_auc_score` and `precision_recall_fscore_support` on the other. Both sides get the same numbers, few enough
for the loop. Ours then does 1,024 units, 300 concepts and 50,000 tokens a split in full; the loop is put at its time a
pair times the number of pairs, since what a pair costs does not depend on how many there are.

    python benchmarks/scores.py [--quick] [--rounds 5] [--threads 2] [--units 6] [--concepts 60]
"""

import os
import platform
import resource
import time
from statistics import median

from harness import BUILD, alternate, arguments, compare, write

TOKENS, FULL = 50_000, (1024, 300)
COLUMNS = 5  # labels a token, as on the organism: topic, entity, subject ...


def make(n_units, n_concepts, kind, seed):
    """Return one split: units that each know a concept a little, and Zipf-distributed concepts, one of each column."""
    import torch

    from course_utils.features import Table

    generator = torch.Generator().manual_seed(seed)
    each = n_concepts // COLUMNS
    drawn = torch.multinomial(1 / torch.arange(1.0, each + 1), TOKENS * COLUMNS, True, generator=generator)
    place = drawn.view(TOKENS, COLUMNS) + each * torch.arange(COLUMNS)
    on = torch.zeros(TOKENS, n_concepts, dtype=torch.bool).scatter_(1, place, True)
    x = torch.randn(TOKENS, n_units, generator=generator) + 1.5 * on[:, torch.arange(n_units) % n_concepts]
    table = Table(tuple(f"c:{i}" for i in range(n_concepts)), on, torch.arange(TOKENS) // 50)
    return x if kind == "dense" else torch.relu(x - 2.5), table


def loop(xa, y, xb, z):
    """Score every pair with scikit-learn; return AUROC and F1 on the second split, [units concepts]."""
    import numpy as np
    from sklearn.metrics import precision_recall_curve, precision_recall_fscore_support, roc_auc_score

    xa, xb, y, z = xa.numpy(), xb.numpy(), y.on.numpy(), z.on.numpy()
    found = np.zeros((2, xa.shape[1], y.shape[1]))
    for u in range(xa.shape[1]):
        for c in range(y.shape[1]):
            roc_auc_score(y[:, c], xa[:, u])
            precision, recall, thresholds = precision_recall_curve(y[:, c], xa[:, u])
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            says = xb[:, u] >= thresholds[np.flatnonzero(f1[:-1] == f1.max())[-1]]
            found[:, u, c] = roc_auc_score(z[:, c], xb[:, u]), precision_recall_fscore_support(
                z[:, c], says, average="binary", zero_division=0)[2]
    return found


def measure(kind, args):
    """Return the rows of one kind of units, and all rounds."""
    from scipy.sparse import csc_array

    from course_utils.features import score_units

    def splits(*size):
        dense, tables = zip(*(make(*size, kind, seed) for seed in (0, 1)), strict=True)
        units = dense if kind == "dense" else [csc_array(x.numpy()) for x in dense]
        return [(given[0], tables[0], given[1], tables[1]) for given in (units, dense)]

    def ours(*given):
        return score_units(*given, threads=args.threads).heldout

    def seconds(function, given):
        begun = time.perf_counter()
        function(*given)
        return time.perf_counter() - begun

    mine, same = splits(args.units, args.concepts)
    theirs, cells = loop(*same), ours(*mine)
    quality = {"largest difference of AUROC": float(abs(cells.auroc.numpy() - theirs[0]).max()),
               "of F1": float(abs(cells.f1.numpy() - theirs[1]).max())}
    assert max(quality.values()) < 1e-5, quality
    found = alternate(args.rounds, ours=lambda: seconds(ours, mine), peer=lambda: seconds(loop, same))
    rows = [compare(f"scores, {kind}, {args.units} units x {args.concepts} concepts / scikit-learn",
                    found["ours"], found["peer"], quality=quality)]
    whole, _ = splits(*FULL)
    full = [seconds(ours, whole) for _ in range(min(args.rounds, 3))]
    peer = median(found["peer"]) / (args.units * args.concepts) * FULL[0] * FULL[1]
    rows.append(compare(f"scores, {kind}, {FULL[0]:,} units x {FULL[1]} concepts / scikit-learn, from its time a pair",
                        full, [peer] * len(full)))
    return rows, found | {"full": full}


def main():
    """Measure and write ``build/bench/scores.json``."""
    args = arguments(__doc__, units=6, concepts=60)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import sklearn
    import torch

    torch.set_num_threads(args.threads)
    rows, rounds = [], {}
    for kind in ("dense", "sparse"):
        more, rounds[kind] = measure(kind, args)
        rows += more
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {memory:.2f} GB, data included")
    BUILD.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "sklearn": sklearn.__version__}
    write("scores", rows, versions, args.threads, rounds=rounds, peak_gb=memory)


if __name__ == "__main__":
    main()
