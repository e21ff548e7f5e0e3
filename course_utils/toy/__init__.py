"""Toy models of superposition (Elhage et al. 2022, arXiv 2209.10652), trained many at a time.

A toy squeezes ``f`` features into ``m`` hidden dimensions and rebuilds them, x' = ReLU(Wᵀ W x + b). One training step:

1. draw a batch: each feature is on with its density (1 − sparsity), and then uniform in (0, 1);
2. loss = Σ_i I_i (x'_i − x_i)², averaged over the batch, with importances I;
3. with d = 2 (x' − x) where x' > 0, the gradients are ∂b = I d and ∂W = h (I d)ᵀ + (W I d) xᵀ, with h = W x;
4. Adam, with a learning rate that falls to zero along a cosine.

Every tensor has the instance as its first axis, so a sweep over densities, importances and seeds is one run, and
instances never touch each other. Batches lie in memory as [instances f n]: an operation on one feature of a batch then
runs along adjacent numbers. Outside they are seen as [instances n f].
"""

from course_utils.toy.data import batches, sample
from course_utils.toy.models import Toy, explained, losses, new_toys, reconstruct
from course_utils.toy.training import Training, fit, train

__all__ = ["Toy", "Training", "batches", "explained", "fit", "losses", "new_toys", "reconstruct", "sample", "train"]
