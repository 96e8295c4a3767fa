"""Simulated observers: RDMs whose truth is known, for demonstrations and for testing whole chains of analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from actkit.errors import InputError
from actkit.recordings import VARIABLE, leading_dim, rdm_dataset, select_stimuli

if TYPE_CHECKING:
    import xarray as xr


def simulated_observers(
    truth_rdms: xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset],
    n_subjects: int = 12,
    noise: float = 1.0,
    seed: int = 0,
    weights: Sequence[float] | None = None,
    name: str = "simulated observers",
) -> xr.Dataset:
    r"""Simulate subjects whose RDMs are a known mixture of model RDMs plus noise of their own.

    Every true RDM is standardised over pairs (mean 0, standard deviation 1); the truth :math:`t` is their weighted sum,
    standardised again. Subject :math:`s` shows :math:`d_s = t + \nu e_s`, with :math:`e_s` standard normal and
    independent over pairs and subjects, shifted so that its least value is 0 (rank and product-moment correlations do
    not see the shift). The signal-to-noise ratio is :math:`1 / \nu` in standard deviations, so the expected Pearson
    correlation of a subject with the truth is :math:`1 / \sqrt{1 + \nu^2}` and that of two subjects
    :math:`1 / (1 + \nu^2)`.

    Parameters
    ----------
    truth_rdms : xarray.Dataset, or sequence or mapping of them
        RDM datasets; every RDM in them is a component, over the stimuli of the first dataset, matched by id.
    n_subjects : int
        How many subjects.
    noise : float
        :math:`\nu`, the standard deviation of the noise relative to that of the truth.
    seed : int
        Seed; subject s draws from a Philox stream of seed and s alone.
    weights : sequence of float, optional
        One a component; by default equal.
    name : str
        What the RDMs are called.

    Returns
    -------
    xarray.Dataset
        An RDM dataset of dim ``subject``. Its attrs say that it is simulated (``simulated``), the ``truth`` in words,
        ``noise``, ``signal_to_noise``, ``expected_correlation`` and ``seed``.

    Raises
    ------
    InputError
        If there is no component, a component is constant or has missing values, or numbers do not fit.
    """
    if n_subjects < 1 or noise < 0 or not np.isfinite(noise):
        raise InputError(f"simulated observers need n_subjects >= 1 and noise >= 0, got {n_subjects} and {noise}")
    names, vectors, ids = _components(truth_rdms)
    chosen = np.ones(len(names)) if weights is None else np.asarray(weights, dtype=np.float64)
    if chosen.shape != (len(names),):
        raise InputError(f"{len(chosen.ravel())} weights were given for {len(names)} components: {', '.join(names)}")
    truth = _standardised(chosen @ np.array(vectors), "the weighted sum of the components")
    shown = np.empty((n_subjects, len(truth)))
    for subject in range(n_subjects):
        rng = np.random.Generator(np.random.Philox(key=[seed, subject]))
        shown[subject] = truth + noise * rng.standard_normal(len(truth))
    shown -= shown.min(axis=1, keepdims=True)
    words = " + ".join(f"{weight:g} x {part}" for weight, part in zip(chosen, names, strict=True))
    return rdm_dataset(
        shown,
        [f"simulated {subject + 1:02d}" for subject in range(n_subjects)],
        "subject",
        ids,
        "simulated",
        name,
        simulated=1,
        truth=words,
        noise=float(noise),
        signal_to_noise=float(1 / noise) if noise > 0 else float("inf"),
        expected_correlation=float(1 / np.sqrt(1 + noise**2)),
        seed=int(seed),
    )


def _components(
    truth_rdms: xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset],
) -> tuple[list[str], list[np.ndarray], np.ndarray]:
    """Names and standardised vectors of all components, and the stimulus ids that they run over."""
    if isinstance(truth_rdms, Mapping) and not hasattr(truth_rdms, "data_vars"):
        sets = list(truth_rdms.values())
    else:
        sets = [truth_rdms] if hasattr(truth_rdms, "data_vars") else list(truth_rdms)  # type: ignore[list-item]
    if not sets:
        raise InputError("simulated observers need at least one true RDM")
    ids = sets[0]["stimulus"].values
    names: list[str] = []
    vectors: list[np.ndarray] = []
    for rdms in sets:
        dim = leading_dim(rdms)
        matched = select_stimuli(rdms, ids)
        for label, vector in zip(matched[dim].values.tolist(), matched[VARIABLE].values, strict=True):
            names.append(str(label))
            vectors.append(_standardised(np.asarray(vector, dtype=np.float64), f"the true RDM {label!r}"))
    return names, vectors, ids


def _standardised(vector: np.ndarray, what: str) -> np.ndarray:
    """A vector of mean 0 and standard deviation 1."""
    spread = vector.std()
    if not np.isfinite(spread) or spread <= 1e-12 * max(1.0, float(np.abs(vector).max(initial=0.0))):
        raise InputError(f"{what} is constant or has missing values, so observers cannot be made from it")
    return (vector - vector.mean()) / spread
