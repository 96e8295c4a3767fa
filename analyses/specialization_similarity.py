"""The correlation measure: how alike a part's states are when one sub-task's answer is the same.

Source: Béna & Goodman (2025), Nature Communications 16:187, whose code pairs each sample with one other at random; here
the mean over all pairs is computed exactly, in one pass.
"""

from __future__ import annotations

import numpy as np

__all__ = ["pair_similarity", "similarity_of_parts"]


def pair_similarity(patterns: np.ndarray, groups: np.ndarray) -> float:
    """Mean Pearson correlation over all pairs of patterns of one group, groups weighted by their size.

    With patterns centred and scaled to length 1, the sum over the n (n − 1) ordered pairs of a group is the squared
    length of their sum, less n.

    Parameters
    ----------
    patterns : numpy.ndarray
        ``(n, units)``. Patterns without variance have no correlation and are left out.
    groups : numpy.ndarray
        ``(n,)`` group of each pattern; groups of one are left out.

    Returns
    -------
    float
        From -1 to 1; NaN without a pair.
    """
    x = np.asarray(patterns, dtype=np.float64)
    x = x - x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x, axis=1)
    kept = length > 1e-12 * np.abs(patterns).max(axis=1, initial=0, keepdims=False).clip(min=1e-300)
    x, groups = x[kept] / length[kept, None], np.asarray(groups)[kept]
    total, weight = 0.0, 0
    for group in np.unique(groups):
        own = x[groups == group]
        n = len(own)
        if n > 1:
            total += n * float(((own.sum(axis=0) ** 2).sum() - n) / (n * (n - 1)))
            weight += n
    return total / weight if weight else float("nan")


def similarity_of_parts(
    states: np.ndarray, labels: np.ndarray, parts: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Similarity of each part's states given each sub-task's answer, and its baseline.

    Parameters
    ----------
    states : numpy.ndarray
        ``(n, steps, units)`` of one network, recorded with independent answers.
    labels : numpy.ndarray of int
        ``(n, tasks)``; a sub-task counts the stimuli alone that it is asked of, whose number is not negative.
    parts : list of numpy.ndarray of int
        Units of each part.

    Returns
    -------
    same, baseline : numpy.ndarray
        ``(part, task, step)`` mean correlation of pairs with the same answer, and of all pairs that the sub-task is
        asked of. The measure is ``(same − baseline) / (1 − baseline)``.
    """
    steps, tasks = states.shape[1], labels.shape[1]
    same, baseline = np.empty((len(parts), tasks, steps)), np.empty((len(parts), tasks, steps))
    asked = labels >= 0
    # Sub-tasks that are asked of the same stimuli have one baseline.
    first = [next(j for j in range(k + 1) if np.array_equal(asked[:, j], asked[:, k])) for k in range(tasks)]
    for m, units in enumerate(parts):
        for step in range(steps):
            own = states[:, step, units]
            for k in range(tasks):
                rows = own[asked[:, k]]
                same[m, k, step] = pair_similarity(rows, labels[asked[:, k], k])
                baseline[m, k, step] = (
                    baseline[m, first[k], step]
                    if first[k] < k
                    else pair_similarity(rows, np.zeros(len(rows), dtype=np.int64))
                )
    return same, baseline
