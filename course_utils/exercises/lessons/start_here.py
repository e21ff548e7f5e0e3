"""Notebook 00: what counts as lit, the lazy rival, and the accuracy of a threshold."""

from __future__ import annotations

import numpy as np
import torch

from course_utils.exercises.book import Exercise

lit = Exercise("00.1", "how much is lit", stars=1, minutes=4, lines=1, hints=(
    "Comparing the two tensors gives True or False for every pair; `threshold` is stretched over the tokens by itself.",
    "A share is a mean of zeros and ones: turn the comparison into numbers with `.float()`, then `.mean()`."))


@lit.reference
def share_lit(activity, threshold):
    """Share of the pairs (token, neuron) in which the neuron is above its own threshold."""
    return float((activity > threshold).float().mean())


@lit.right
def _(activity, threshold):
    lit = [[float(a) > float(t) for a, t in zip(row, threshold, strict=True)] for row in activity]
    return torch.tensor(lit, dtype=torch.float32).mean()


@lit.right
def _(activity, threshold):
    return torch.count_nonzero((activity - threshold).clamp(min=0)) / activity.numel()


@lit.wrong(
    "at least once",
    "You counted a neuron as lit when it is above its threshold on *any* token. That share only grows with the length"
    " of the text; count every pair of token and neuron on its own.")
def _(activity, threshold):
    return (activity > threshold).any(0).float().mean()


@lit.wrong(
    "reached is not above",
    "A value that is exactly at its threshold is not above it. With `>=` a neuron that is always silent (activity 0, "
    "threshold 0) would count as lit on every token.")
def _(activity, threshold):
    return (activity >= threshold).float().mean()


@lit.wrong(
    "one threshold for all",
    "Every neuron has a threshold of its own: a quiet one can be lit at a value at which a loud one sleeps. Compare "
    "column by column, not with the thresholds' mean.")
def _(activity, threshold):
    return (activity > threshold.mean()).float().mean()


@lit.wrong(
    "the mean is not every token",
    "You averaged over the tokens first and compared then. A neuron that is strong on one token and silent on the "
    "rest is lit on that one; compare first, average last.")
def _(activity, threshold):
    return (activity.mean(0) > threshold).float().mean()


@lit.wrong(
    "a number, not a share",
    "This counts the lit pairs. Divide by how many pairs there are, so that a long prompt and a short one can be "
    "compared.")
def _(activity, threshold):
    return (activity > threshold).float().sum()


@lit.cases
def _(rng):
    yield torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([0.0, 1.0, 3.0])
    yield torch.tensor([[0.0, 2.0], [0.5, 0.0], [0.0, 0.0]]), torch.tensor([0.0, 1.5])
    yield torch.from_numpy(rng.normal(1, 1, (7, 4))).abs(), torch.from_numpy(rng.uniform(0.2, 3, 4))


lazy = Exercise("00.2", "the lazy rival", stars=1, minutes=4, lines=1, hints=(
    "How often does each label occur? The rival gives the most frequent one every time, and is right that often.",
    "`labels.count(label)` counts one label; take the `max` over `set(labels)`, and divide by `len(labels)`."))


@lazy.reference
def majority(labels):
    """Accuracy of always answering the most frequent label."""
    return max(labels.count(label) for label in set(labels)) / len(labels)


@lazy.right
def _(labels):
    return float(np.unique(np.array(labels), return_counts=True)[1].max() / len(labels))


@lazy.right
def _(labels):
    most = sorted(labels, key=labels.count)[-1]
    return sum(label == most for label in labels) / len(labels)


@lazy.wrong(
    "a guess at random",
    "One divided by the number of different labels is what random guessing gets. The lazy rival is cleverer where "
    "labels are unequal: he gives the frequent one every time.")
def _(labels):
    return 1 / len(set(labels))


@lazy.wrong(
    "a number, not a share",
    "This is how often the rival is right, not the share. Divide by the number of labels.")
def _(labels):
    return max(labels.count(label) for label in set(labels))


@lazy.wrong(
    "guessing in proportion",
    "Giving each label as often as it occurs is right with the sum of the squared shares. Always giving the most "
    "frequent label does better.")
def _(labels):
    return sum((labels.count(label) / len(labels)) ** 2 for label in set(labels))


@lazy.wrong(
    "the first is not the most frequent",
    "You counted the label that comes first; look for the one that comes most often.")
def _(labels):
    return labels.count(labels[0]) / len(labels)


@lazy.wrong("the rarest", "This is the share of the rarest label; the rival gives the most frequent one.")
def _(labels):
    return min(labels.count(label) for label in set(labels)) / len(labels)


@lazy.cases
def _(rng):
    yield ["code", "facts", "facts"]
    yield ["code"]
    yield ["poetry", "poetry", "code", "facts", "facts", "facts", "code", "facts"]
    yield rng.choice(["a", "b", "c"], 20, p=[0.2, 0.5, 0.3]).tolist()


accuracy = Exercise("00.3", "accuracy of a threshold", stars=1, minutes=4, lines=1, hints=(
    "`values > threshold` is what is *said*, `is_task` is what is *true*. Where are the two equal?",
    "`==` between two arrays of True and False gives True where they agree, also where both say no; then `.mean()`."))


@accuracy.reference
def threshold_accuracy(values, is_task, threshold):
    """Share of prompts for which `value above threshold` agrees with `is_task`."""
    return ((values > threshold) == is_task).mean()


@accuracy.right
def _(values, is_task, threshold):
    right = [(v > threshold and t) or (v <= threshold and not t) for v, t in zip(values, is_task, strict=True)]
    return sum(right) / len(right)


@accuracy.right
def _(values, is_task, threshold):
    return 1 - np.logical_xor(values > threshold, is_task).mean()


@accuracy.wrong(
    "only the hits",
    "You counted prompts that are said to be the task and are. A right *no* counts as well: all prompts on which the "
    "answer agrees with the truth.")
def _(values, is_task, threshold):
    return ((values > threshold) & is_task).mean()


@accuracy.wrong(
    "recall",
    "Of the prompts of the task you give the share above the threshold: that is recall. A threshold of minus infinity"
    " would get 1. Accuracy counts the other prompts too.")
def _(values, is_task, threshold):
    return (values[is_task] > threshold).mean()


@accuracy.wrong(
    "what is said, not what is right",
    "This is how often the answer is yes, whether or not it is true; compare it with `is_task`.")
def _(values, is_task, threshold):
    return (values > threshold).mean()


@accuracy.wrong(
    "upside down",
    "You take prompts *below* the threshold for the task; a neuron was chosen that is lit on it.")
def _(values, is_task, threshold):
    return ((values < threshold) == is_task).mean()


@accuracy.wrong(
    "precision",
    "Of the prompts above the threshold you give the share that is the task: that is precision. Accuracy divides by "
    "all prompts, and counts a right no.")
def _(values, is_task, threshold):
    return is_task[values > threshold].mean()


@accuracy.cases
def _(rng):
    yield np.array([0.2, 0.5, 0.9, 0.8]), np.array([False, False, True, False]), 0.5
    yield np.array([0.1, 0.4, 0.7, 0.9, 0.3]), np.array([True, False, True, True, False]), 0.35
    is_task = rng.random(30) < 0.3
    yield rng.normal(is_task, 0.6), is_task, 0.6
