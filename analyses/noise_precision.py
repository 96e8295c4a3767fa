"""Noise covariance of many units from few residuals: shrinkage, and products with its inverse, never p × p.

N residuals of p units span N dimensions at most, and every sum that a shrinkage estimator needs is a sum over their
N × N Gram matrix. A shrunk covariance is a diagonal plus a product of residuals, so that its inverse acts through an
N × N system (Woodbury). Where there are fewer units than rows, the p × p side is the smaller one and is used instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from actkit.errors import InputError

Noise = Literal["none", "diagonal", "shrinkage_eye", "shrinkage_diag"]

# A unit whose residuals are within this many rounding steps of its values has no noise, only rounding.
_ROUNDING_STEPS = 16


@dataclass(frozen=True)
class NoiseCovariance:
    """A covariance of p units, kept as ``diag(diagonal) + factor · residualsᵀ residuals``.

    Attributes
    ----------
    diagonal : numpy.ndarray
        ``(p,)``.
    residuals : numpy.ndarray
        ``(N, p)``; N is 0 for a diagonal covariance.
    factor : float
        What the products of the residuals count.
    shrinkage : float
        The intensity λ: 0 for the sample covariance, 1 for its target; 1 for ``"diagonal"``.
    """

    diagonal: np.ndarray
    residuals: np.ndarray
    factor: float
    shrinkage: float

    def matrix(self) -> np.ndarray:
        """Form the covariance, for few units.

        Returns
        -------
        numpy.ndarray
            ``(p, p)``.
        """
        return np.diag(self.diagonal) + self.factor * self.residuals.T @ self.residuals

    def marginal(self, units: np.ndarray) -> NoiseCovariance:
        """Restrict the covariance to some units.

        The covariance of a part is the part of the covariance. (A part of the *precision* is the covariance given the
        other units, which is another thing: with missing units it gives wrong distances.)

        Parameters
        ----------
        units : numpy.ndarray
            Unit numbers, or a mask ``(p,)``.

        Returns
        -------
        NoiseCovariance
            Of these units.
        """
        return replace(self, diagonal=self.diagonal[units], residuals=self.residuals[:, units])

    def products(self, a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
        """Compute ``a Σ⁻¹ bᵀ``.

        Parameters
        ----------
        a, b : numpy.ndarray
            ``(rows, p)`` patterns; `b` is `a` by default.

        Returns
        -------
        numpy.ndarray
            ``(rows of a, rows of b)``.

        Raises
        ------
        InputError
            If the covariance is singular.
        """
        p = len(self.diagonal)
        if len(self.residuals) == 0 or self.factor == 0:
            _refuse_singular(bool((self.diagonal > 0).all()), self)
            root = np.sqrt(self.diagonal)
            return (a / root) @ ((a if b is None else b) / root).T
        if p <= len(self.residuals) or not (self.diagonal > 0).all():
            factor = _cholesky(self.matrix(), self)
            left = solve_triangular(factor, a.T, lower=True, check_finite=False)
            right = left if b is None else solve_triangular(factor, b.T, lower=True, check_finite=False)
            return left.T @ right
        root = np.sqrt(self.diagonal)
        left, basis = a / root, self.residuals / root
        right = left if b is None else b / root
        # Woodbury: (D + c RᵀR)⁻¹ = D⁻¹ − D⁻¹Rᵀ (I/c + R D⁻¹ Rᵀ)⁻¹ R D⁻¹.
        factor = _cholesky(np.eye(len(basis)) / self.factor + basis @ basis.T, self)
        through = solve_triangular(factor, basis @ left.T, lower=True, check_finite=False)
        other = through if b is None else solve_triangular(factor, basis @ right.T, lower=True, check_finite=False)
        return left @ right.T - through.T @ other


def _refuse_singular(regular: bool, covariance: NoiseCovariance) -> None:
    """Stop where the inverse does not exist."""
    if not regular:
        raise InputError(
            f"the noise covariance of {len(covariance.diagonal)} units is singular (shrinkage intensity "
            f"{covariance.shrinkage:.3g}), so it has no inverse; leave out units without noise, use "
            "noise='shrinkage_eye' or 'diagonal', or record more repetitions"
        )


def _cholesky(matrix: np.ndarray, covariance: NoiseCovariance) -> np.ndarray:
    """Lower Cholesky factor of a matrix that must be regular."""
    try:
        factor = cholesky(matrix, lower=True, check_finite=False)
    except LinAlgError:
        _refuse_singular(False, covariance)
        raise
    smallest = np.square(np.diagonal(factor)).min(initial=np.inf)
    _refuse_singular(bool(smallest > len(matrix) * np.finfo(float).eps * np.diagonal(matrix).max()), covariance)
    return np.asarray(factor)


def noise_covariance(
    residuals: np.ndarray, method: Noise = "shrinkage_diag", dof: int | None = None
) -> NoiseCovariance:
    """Estimate the noise covariance of units from residuals.

    - ``"diagonal"``: variances alone, rsatoolbox's ``"diag"``;
    - ``"shrinkage_eye"``: Σ = λ m I + (1 − λ) S, shrunk to a multiple of the identity (:func:`intensity_eye`);
    - ``"shrinkage_diag"``: Σ = λ diag(S) + (1 − λ) S, variances kept, covariances shrunk (:func:`intensity_diagonal`).

    S is the sum of products of residuals over `dof`. Each unit's mean residual is subtracted first.

    Parameters
    ----------
    residuals : numpy.ndarray
        ``(N, p)``, what is left of the observations when each stimulus's mean (or a model of it) is subtracted.
    method : {"diagonal", "shrinkage_eye", "shrinkage_diag"}
        The estimator.
    dof : int, optional
        Degrees of freedom of the residuals; N − 1 by default. Residuals around the means of n stimuli have N − n.

    Returns
    -------
    NoiseCovariance
        The estimate, without a p × p matrix.

    Raises
    ------
    InputError
        If there are too few residuals, they are not finite, or a unit has no noise.

    References
    ----------
    Ledoit & Wolf (2004), A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate
    Analysis 88. Schäfer & Strimmer (2005), A shrinkage approach to large-scale covariance matrix estimation,
    Statistical Applications in Genetics and Molecular Biology 4.
    """
    values = np.asarray(residuals, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise InputError(f"residuals have shape {values.shape}; a covariance needs at least 2 residuals × units")
    if not np.isfinite(values).all():
        raise InputError("residuals hold NaN or infinite values; leave these observations out")
    n, p = values.shape
    degrees = n - 1 if dof is None else dof
    if degrees < 1:
        raise InputError(f"dof={degrees}: a covariance needs at least one degree of freedom; record more repetitions")
    values = values - values.mean(axis=0)
    squares = np.einsum("ij,ij->j", values, values)
    if method in ("diagonal", "shrinkage_diag"):
        still = int((squares <= 0).sum())
        if still:
            raise InputError(
                f"{still} of {p} units have no noise, so a distance in units of it would be infinite; leave them out, "
                "or use 'shrinkage_eye'"
            )
    if method == "diagonal":
        return NoiseCovariance(squares / degrees, np.empty((0, p)), 0.0, 1.0)
    if method == "shrinkage_eye":
        shrinkage, mean = intensity_eye(values @ values.T if n <= p else values.T @ values, _row_squares(values), p)
        return NoiseCovariance(np.full(p, shrinkage * mean * n / degrees), values, (1 - shrinkage) / degrees, shrinkage)
    if method != "shrinkage_diag":
        raise InputError(f"method is {method!r}; choose 'diagonal', 'shrinkage_eye' or 'shrinkage_diag'")
    scaled = values * np.sqrt(degrees / squares)
    gram = scaled @ scaled.T if n <= p else scaled.T @ scaled
    shrinkage = intensity_diagonal(gram, _row_squares(scaled), fourth_powers(scaled), p, degrees)
    return NoiseCovariance(shrinkage * squares / degrees, values, (1 - shrinkage) / degrees, shrinkage)


def _row_squares(values: np.ndarray) -> np.ndarray:
    """Squared norm of each row."""
    return np.einsum("ij,ij->i", values, values)


def fourth_powers(values: np.ndarray) -> float:
    """Sum the fourth powers of all values.

    Parameters
    ----------
    values : numpy.ndarray
        Any shape.

    Returns
    -------
    float
        ``Σ v⁴``.
    """
    squares = np.square(values).ravel()
    return float(squares @ squares)


def intensity_eye(gram: np.ndarray, row_squares: np.ndarray, n_units: int) -> tuple[float, float]:
    """Ledoit and Wolf's shrinkage to a multiple of the identity (2004, theorem 3.2 and lemmas 3.2 to 3.4).

    With S = XᵀX / N: m = tr S / p, d² = |S − m I|², b² = min(d², Σ_k |x_k x_kᵀ − S|² / N²), λ = b² / d². In terms of
    the Gram matrix G, |S|² = |G|² / N², tr S = tr G / N and Σ_k |x_k x_kᵀ|² = Σ_k |x_k|⁴.

    Parameters
    ----------
    gram : numpy.ndarray
        ``X Xᵀ``, or ``XᵀX``, which has the same norm and trace.
    row_squares : numpy.ndarray
        ``(N,)``, |x_k|² of each residual.
    n_units : int
        p.

    Returns
    -------
    shrinkage : float
        λ, from 0 to 1.
    mean : float
        m, the mean eigenvalue of S.
    """
    n = len(row_squares)
    norm = float(np.square(gram).sum()) / n**2
    mean = float(row_squares.sum()) / (n * n_units)
    spread = norm - n_units * mean**2
    if spread <= n_units * np.finfo(float).eps * norm:  # S is a multiple of the identity: there is nothing to shrink
        return 1.0, mean
    error = (float(np.square(row_squares).sum()) / n - norm) / n
    return float(np.clip(error / spread, 0.0, 1.0)), mean


def intensity_diagonal(gram: np.ndarray, row_squares: np.ndarray, fourth: float, n_units: int, dof: float) -> float:
    """Schäfer and Strimmer's shrinkage of correlations to zero (2005, eq. 10 with target D).

    λ = Σ_{i≠j} Var(r_ij) / Σ_{i≠j} r_ij², with residuals z scaled to unit variance, r_ij = Σ_k z_ki z_kj / (N − 1) and
    Var(r_ij) = N / dof² · (Σ_k (z_ki z_kj)² / (N − 1) − r_ij²), as rsatoolbox computes it. (The paper has
    Σ_k (z_ki z_kj)² − (Σ_k z_ki z_kj)² / N over (N − 1)³ / N, which makes λ larger by 1 / (N − 1)².) Sums over all i
    and j come from the Gram matrix, and the diagonal is taken off: Σ_k z_ki² is dof for every unit.

    Parameters
    ----------
    gram : numpy.ndarray
        ``Z Zᵀ`` or ``ZᵀZ`` of the scaled residuals.
    row_squares : numpy.ndarray
        ``(N,)``, |z_k|².
    fourth : float
        Σ z⁴ over residuals and units.
    n_units : int
        p, units with noise.
    dof : float
        Degrees of freedom.

    Returns
    -------
    float
        λ, from 0 to 1; 1 where no pair of units is correlated.
    """
    n = len(row_squares)
    products = (float(np.square(gram).sum()) - n_units * dof**2) / (n - 1) ** 2
    squares = (float(np.square(row_squares).sum()) - fourth) / (n - 1)
    if products <= n_units * np.finfo(float).eps * dof**2 / (n - 1) ** 2:
        return 1.0
    return float(np.clip(n / dof**2 * (squares - products) / products, 0.0, 1.0))


def noise_scale(rows: np.ndarray, residuals: np.ndarray, dof: np.ndarray | float) -> tuple[np.ndarray, int]:
    """Standard deviation of each unit's noise, and how many units never change.

    Parameters
    ----------
    rows : numpy.ndarray
        ``(T, units)`` observations, NaN where missing.
    residuals : numpy.ndarray
        ``(T, units)`` what the stimulus means leave, 0 where missing.
    dof : numpy.ndarray or float
        Degrees of freedom, of all units or of each.

    Returns
    -------
    inverse : numpy.ndarray
        ``(units,)``, one over the standard deviation; 0 for units that never change, which drops them.
    n_silent : int
        How many these are.

    Raises
    ------
    InputError
        If a unit differs between stimuli and not between repetitions.
    """
    squares = np.einsum("ij,ij->j", residuals, residuals)
    low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
    rounding = len(rows) * (_ROUNDING_STEPS * np.finfo(float).eps * np.maximum(np.abs(low), np.abs(high))) ** 2
    still = squares <= rounding
    silent = still & (np.square(high - low) <= rounding)
    if (still & ~silent).any():
        raise InputError(
            f"{int((still & ~silent).sum())} units differ between stimuli and not at all between repetitions: in units "
            "of their noise the distance is infinite. Check that the repetitions vary this layer, use "
            "noise='shrinkage_eye' or 'none', or leave the layer out"
        )
    inverse = np.zeros(len(squares))
    np.divide(1.0, np.sqrt(squares / dof), out=inverse, where=~still)
    return inverse, int(silent.sum())
