"""Behavioural signatures of objects and images: d′ by class and by image (o1, o2, i1, i2), and odd-one-out choices."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import stats

from actkit.errors import InputError
from actkit.recordings import VARIABLE, rdm_dataset

Signature = Literal["o1", "o2", "i1", "i2", "i1n", "i2n"]
CAP = 5.0


def pair_hit_rates(rates: ArrayLike, labels: Sequence[str] | np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Turn choices among many classes into choices between two: how often the right class beats each other one.

    Parameters
    ----------
    rates : array_like, shape (n_stimuli, n_classes)
        How often (or with which probability) each class was chosen for each stimulus.
    labels : sequence of str, shape (n_stimuli,)
        The right class of each stimulus.
    classes : sequence of str, shape (n_classes,)
        The classes, in the order of the columns.

    Returns
    -------
    numpy.ndarray, shape (n_stimuli, n_classes)
        ``p_right / (p_right + p_other)``; NaN for the right class itself, and where neither was ever chosen. Source:
        Rajalingham et al. (2018), for networks.

    Raises
    ------
    InputError
        If shapes do not fit, a label is not among the classes, or a rate is negative.
    """
    p = np.asarray(rates, dtype=np.float64)
    own = _own(p, labels, classes)
    if np.nanmin(p) < 0:
        raise InputError(f"rates hold {np.nanmin(p):g}; probabilities and counts cannot be negative")
    right = p[np.arange(len(p)), own][:, None]
    total = right + p
    hits = np.divide(right, total, out=np.full(p.shape, np.nan), where=total > 0)
    hits[np.arange(len(p)), own] = np.nan
    return hits


def signature(
    hits: ArrayLike, labels: Sequence[str] | np.ndarray, classes: Sequence[str], kind: Signature = "i2n"
) -> np.ndarray:
    """Behavioural signature of two-alternative choices: d′ = z(hit rate) − z(false-alarm rate), within ±5.

    With H[s, k] how often stimulus s was told from the distractor class k, a stimulus of class k shown with the
    distractor j is taken for a j in 1 − H[s, j] of its trials. The hit rate and the false-alarm rate are

    - ``i2``: H[s, k], and the mean of 1 − H[t, c(s)] over the stimuli t of class k;
    - ``i1``: the mean of H[s, ·], and the mean of 1 − H[t, c(s)] over all stimuli t of other classes;
    - ``o2`` and ``o1``: as i2 and i1, with the hit rate's mean over the stimuli of a class;
    - ``i1n``, ``i2n``: i1 (i2) minus its mean over the stimuli of the same class (with the same distractor), which
      leaves the differences between images of one class.

    Parameters
    ----------
    hits : array_like, shape (n_stimuli, n_classes)
        Share of right choices of each stimulus against each distractor class; NaN for its own class and where it was
        not shown. :func:`pair_hit_rates` makes it from choices among all classes.
    labels : sequence of str, shape (n_stimuli,)
        The class of each stimulus.
    classes : sequence of str, shape (n_classes,)
        The classes, in the order of the columns.
    kind : {"o1", "o2", "i1", "i2", "i1n", "i2n"}
        Which signature.

    Returns
    -------
    numpy.ndarray
        o1 ``(n_classes,)``; o2 ``(n_classes, n_classes)``, NaN on the diagonal; i1, i1n ``(n_stimuli,)``; i2, i2n
        ``(n_stimuli, n_classes)``, NaN for the own class.

    Raises
    ------
    InputError
        If shapes do not fit, a label is not among the classes, a class has no stimuli, or a rate is outside 0 … 1.

    References
    ----------
    Rajalingham, Issa, Bashivan, Kar, Schmidt & DiCarlo (2018), Large-scale, high-resolution comparison of the core
    visual object recognition behavior of humans, monkeys, and state-of-the-art deep artificial neural networks, Journal
    of Neuroscience 38.
    """
    if kind not in ("o1", "o2", "i1", "i2", "i1n", "i2n"):
        raise InputError(f"kind={kind!r} is no signature; use o1, o2, i1, i2, i1n or i2n")
    h = np.array(hits, dtype=np.float64)
    own = _own(h, labels, classes)
    if np.nanmin(h) < 0 or np.nanmax(h) > 1:
        raise InputError(f"hit rates run from {np.nanmin(h):g} to {np.nanmax(h):g}; shares lie in 0 … 1")
    h[np.arange(len(h)), own] = np.nan
    n = len(classes)
    members = [own == k for k in range(n)]
    of_class = np.stack([_mean(h[rows], 0) for rows in members])  # (class, distractor)
    false = 1 - of_class.T  # [k, j]: stimuli of class j taken for a k
    if kind in ("i2", "i2n"):
        d = _d_prime(h, false[own])
    elif kind == "o2":
        return _d_prime(of_class, false)
    else:
        alarms = np.array([float(_mean(1 - h[~rows][:, k], 0)) for k, rows in enumerate(members)])
        if kind == "o1":
            return _d_prime(np.array([float(_mean(h[rows].ravel(), 0)) for rows in members]), alarms)
        d = _d_prime(_mean(h, 1), alarms[own])
    if kind.endswith("n"):
        for rows in members:
            d[rows] -= _mean(d[rows], 0)
    return d


def odd_one_out(
    triplets: ArrayLike, odd: ArrayLike, ids: Sequence[Hashable] | None = None, name: str = "odd-one-out"
) -> xr.Dataset:
    """RDM from odd-one-out choices: how rarely two stimuli are kept together when a third is at hand.

    The similarity of two stimuli is the share of the trials showing both in which the third was the odd one;
    dissimilarity is 1 − similarity. One choice counts for all three pairs of its triplet.

    Parameters
    ----------
    triplets : array_like, shape (n_trials, 3)
        The ids shown in each trial.
    odd : array_like, shape (n_trials,)
        The id that was chosen as the odd one.
    ids : sequence, optional
        All stimuli, in the order wanted; by default those shown, sorted.
    name : str
        What the RDM is called.

    Returns
    -------
    xarray.Dataset
        An RDM dataset with one RDM; pairs never shown together are NaN. ``n_trials`` (pair) counts the trials.

    Raises
    ------
    InputError
        If a triplet repeats a stimulus, the odd one is not in it, or an id is unknown.

    References
    ----------
    Hebart, Zheng, Pereira & Baker (2020), Revealing the multidimensional mental representations of natural objects
    underlying human similarity judgements, Nature Human Behaviour 4.
    """
    shown, chosen = np.asarray(triplets).astype(str), np.asarray(odd).astype(str)
    if shown.ndim != 2 or shown.shape[1] != 3 or chosen.shape != (len(shown),) or not len(shown):
        raise InputError(f"triplets of shape {shown.shape} and odd ones of shape {chosen.shape}; give (n, 3) and (n,)")
    known = np.unique(shown) if ids is None else np.array([str(value) for value in ids])
    place = {value: k for k, value in enumerate(known.tolist())}
    if lacking := set(shown.ravel().tolist()) - set(place):
        raise InputError(f"the stimulus {sorted(lacking)[0]!r} was shown and is not among the ids; add it")
    index = np.array([[place[value] for value in row] for row in shown.tolist()])
    repeated = (index[:, 0] == index[:, 1]) | (index[:, 0] == index[:, 2]) | (index[:, 1] == index[:, 2])
    if repeated.any():
        raise InputError(f"trial {int(repeated.argmax())} shows a stimulus twice: {shown[repeated.argmax()].tolist()}")
    is_odd = shown == chosen[:, None]
    if not is_odd.any(axis=1).all():
        bad = int((~is_odd.any(axis=1)).argmax())
        raise InputError(f"trial {bad}: the odd one {str(chosen[bad])!r} is not among {shown[bad].tolist()}")
    together, total = np.zeros((2, len(known), len(known)))
    for a, b, third in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        for i, j in ((a, b), (b, a)):
            np.add.at(total, (index[:, i], index[:, j]), 1.0)
            np.add.at(together, (index[:, i], index[:, j]), is_odd[:, third].astype(np.float64))
    pairs = np.triu_indices(len(known), 1)
    count = total[pairs]
    similarity = np.divide(together[pairs], count, out=np.full(count.shape, np.nan), where=count > 0)
    result = rdm_dataset((1 - similarity)[None], [name], "rdm", known, "odd-one-out", name)
    return result.assign(
        n_trials=(result[VARIABLE].dims[-1], count.astype(np.int64), {"long_name": "trials showing both", "units": "1"})
    )


def _own(values: np.ndarray, labels: Any, classes: Sequence[str]) -> np.ndarray:
    """The column of each stimulus' own class."""
    names = [str(value) for value in classes]
    words = [str(value) for value in np.asarray(labels).tolist()]
    if values.ndim != 2 or values.shape != (len(words), len(names)):
        raise InputError(
            f"rates have the shape {values.shape}, with {len(words)} labels and {len(names)} classes; give stimuli × "
            "classes"
        )
    if len(set(names)) < len(names) or len(names) < 2:
        raise InputError(f"classes are {names}; give two or more, each once")
    if unknown := sorted(set(words) - set(names)):
        raise InputError(f"the label {unknown[0]!r} is not among the classes {names}; add its column")
    if empty := sorted(set(names) - set(words)):
        raise InputError(f"class {empty[0]!r} has no stimuli, so its false alarms are unknown; leave its column out")
    if np.isnan(values).all():
        raise InputError("all rates are NaN, so there is nothing to measure")
    return np.array([names.index(word) for word in words])


def _d_prime(hit: np.ndarray, alarm: np.ndarray) -> np.ndarray:
    """z(hit rate) − z(false-alarm rate) within ±5; rates of 0 and 1 are infinite only before the cap."""
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        d = stats.norm.ppf(hit) - stats.norm.ppf(alarm)
    # Always (or never) saying yes, whatever is shown, is no sensitivity: ∞ − ∞ is 0 here, and unknown rates stay NaN.
    d = np.where((hit == alarm) & ((hit == 0) | (hit == 1)), 0.0, d)
    return np.clip(d, -CAP, CAP)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
