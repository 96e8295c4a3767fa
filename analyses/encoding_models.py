"""One fold of one layer, ready to be fitted to any responses: recorded ones, and the same ones permuted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from actkit.analyses.encoding_pls import pls_path
from actkit.analyses.encoding_ridge import at_edges, centre, decompose, errors_of_the_mean, ridge, scale_of

Model = Literal["ridge", "pls"]


@dataclass(frozen=True)
class Fit:
    """Held-out predictions of one fold.

    Attributes
    ----------
    predicted : numpy.ndarray
        ``(n_test, n_neurons)``.
    penalty : numpy.ndarray
        ``(n_neurons,)`` chosen penalties as multiples of the mean squared length of a pattern; NaN for PLS.
    components : int
        Components in use; 0 for ridge.
    low, high : int
        Choices at the edges of the grid of penalties; for PLS, `high` is 1 where the largest count was chosen.
    """

    predicted: np.ndarray
    penalty: np.ndarray
    components: int = 0
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class FoldModel:
    """What predicts the stimuli of one fold from those of the others.

    Attributes
    ----------
    gram : numpy.ndarray
        ``(n, n)`` inner products of the layer.
    train, test : numpy.ndarray of int
        The stimuli.
    model : {"ridge", "pls"}
        The linear map.
    penalties : numpy.ndarray
        Penalties of ridge, as multiples of the mean squared length of the centred training patterns.
    counts : tuple of int
        Numbers of components of PLS to choose from.
    inner : list of numpy.ndarray of int
        Parts of the training stimuli, over which is chosen; empty where there is nothing to choose.
    standardise : bool
        PLS: divide neurons by their standard deviation over the stimuli that are learnt from.
    """

    gram: np.ndarray
    train: np.ndarray
    test: np.ndarray
    model: Model
    penalties: np.ndarray
    counts: tuple[int, ...]
    inner: list[np.ndarray]
    standardise: bool = False

    @cached_property
    def scale(self) -> float:
        """Mean squared length of the centred training patterns; 0 for a constant layer."""
        return scale_of(self.gram, self.train)

    @cached_property
    def basis(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of the training stimuli, which serve all responses."""
        return decompose(centre(self.gram, self.train, self.train))

    def fit(self, responses: np.ndarray) -> Fit:
        """Choose, fit and predict.

        Parameters
        ----------
        responses : numpy.ndarray
            ``(n, n_neurons)``.

        Returns
        -------
        Fit
            Everything that depends on the responses is done anew; the decomposition of the stimuli is kept.
        """
        empty = np.full(responses.shape[1], np.nan)
        if self.scale == 0:  # a layer that is constant over the training stimuli predicts the mean
            return Fit(np.tile(responses[self.train].mean(axis=0), (len(self.test), 1)), empty)
        if self.model == "pls":
            return self._pls(responses)
        grid = self.penalties * self.scale
        fit = ridge(self.gram, responses, self.train, self.test, grid, self.inner, self.basis)
        varies = np.ptp(responses[self.train], axis=0) > 0
        low, high = at_edges(fit.chosen, fit.errors, fit.baseline, varies)
        return Fit(fit.predicted, self.penalties[fit.chosen], 0, low, high)

    def _pls(self, responses: np.ndarray) -> Fit:
        """Partial least squares with the number of components that serves the inner folds best, one for all neurons."""
        count, high = self.counts[0], 0
        if len(self.counts) > 1:
            errors = np.zeros((len(self.counts), responses.shape[1]))
            for part in self.inner:
                predicted, _ = self._path(responses, np.setdiff1d(self.train, part), part, self.counts)
                errors += ((predicted - responses[part]) ** 2).sum(axis=1) / len(self.train)
            baseline = errors_of_the_mean(responses, self.train, self.inner)
            varies = baseline > 0
            # Shares of each neuron's variance, so that loud neurons do not decide; fewer components at a tie.
            share = (errors[:, varies] / baseline[varies]).mean(axis=1) if varies.any() else np.ones(len(errors))
            best = int(np.argmin(share))
            count, high = self.counts[best], int(best == len(self.counts) - 1)
        predicted, used = self._path(responses, self.train, self.test, (count,))
        high *= int(used[0] == count)  # fewer in use: there are no more
        return Fit(predicted[0], np.full(responses.shape[1], np.nan), int(used[0]), 0, high)

    def _path(
        self, responses: np.ndarray, train: np.ndarray, test: np.ndarray, counts: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predictions for each number of components, and the components in use."""
        spread = responses[train].std(axis=0) if self.standardise else np.ones(responses.shape[1])
        spread[spread == 0] = 1.0
        path = pls_path(self.gram, responses / spread, train, test, counts)
        return path.predicted * spread, path.n_components
