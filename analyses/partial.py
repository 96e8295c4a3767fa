"""Partial and semi-partial scores, and explained variance, from bilinear forms: exact on the data and on every draw.

A measure that is a normalised scalar product (cosine; Pearson, Spearman and rho-a after centring; the whitened ones in
their metric) knows RDM vectors only through the matrix of their products F, ``F_ab = <a, b>``. So does regression:
what is left of a and b when the controls C are taken out has the product ``F_ab − F_aC F_CC⁻¹ F_Cb``, the Schur
complement of F. No residual vector is ever made, and a bootstrap draw only brings another F.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actkit.errors import InputError

Index = Sequence[int] | np.ndarray

# What regression leaves of a vector that lies in the span of the others is rounding, below this share of its square.
_SPAN = 1e-10


def partial_scores(
    forms: np.ndarray, models: Index, controls: Index, subjects: Index, semi: bool = False
) -> np.ndarray:
    """Compare models with subjects after the controls are taken out.

    With ``F_ab·C = F_ab − F_aC F_CC⁻¹ F_Cb``, the product of what is left of a and b:

    - partial: ``F_ms·C / √(F_mm·C F_ss·C)``, the correlation of both residuals;
    - semi-partial: ``F_ms·C / √(F_mm·C F_ss)``, the correlation of the model's residual with the whole subject. Its
      square is the variance of the subject that the model explains on top of the controls.

    Parameters
    ----------
    forms : numpy.ndarray
        ``(…, V, V)`` products of all vectors, such as :func:`actkit.analyses.comparison.forms` gives for every draw.
    models, controls, subjects : sequence of int
        Which of the V vectors are which. Without controls the plain scores come out.
    semi : bool
        Take the controls out of the models only.

    Returns
    -------
    numpy.ndarray of float64
        ``(…, models, subjects)``, between −1 and 1. NaN where forms are not finite, and where the controls explain a
        side entirely (a model that is a mixture of controls), up to rounding.

    Raises
    ------
    InputError
        If `forms` is not a stack of square matrices, or an index lies outside it.

    References
    ----------
    Schur complements and partial correlation: Whittaker (1990), Graphical Models in Applied Multivariate Statistics,
    section 5.
    """
    forms = _checked(forms, models, controls, subjects)
    m, c, s = (np.asarray(index, dtype=np.int64) for index in (models, controls, subjects))
    across, of_models, of_subjects = _left_over(forms, m, c, s)
    squares = np.diagonal(forms, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        model = np.where(of_models > _SPAN * squares[..., m], of_models, np.nan)
        if semi:
            subject = np.where(squares[..., s] > 0, squares[..., s], np.nan)
        else:
            subject = np.where(of_subjects > _SPAN * squares[..., s], of_subjects, np.nan)
        scores = across / (np.sqrt(model)[..., :, None] * np.sqrt(subject)[..., None, :])
    return np.clip(scores, -1.0, 1.0)


def explained(forms: np.ndarray, predictors: Index, subjects: Index) -> np.ndarray:
    """Give the share of each subject's variance that predictors explain together (R² of least squares).

    ``R² = F_sT F_TT⁻¹ F_Ts / F_ss``. The forms say what is meant by variance: around the mean for forms of centred
    vectors (Pearson, Spearman), around zero for cosine, in the whitened metric for whitened forms.

    Parameters
    ----------
    forms : numpy.ndarray
        ``(…, V, V)`` products of all vectors.
    predictors, subjects : sequence of int
        Which of the V vectors are which. Collinear predictors count once; no predictor explains 0.

    Returns
    -------
    numpy.ndarray of float64
        ``(…, subjects)``, between 0 and 1; NaN where forms are not finite or a subject has no variance.

    Raises
    ------
    InputError
        If `forms` is not a stack of square matrices, or an index lies outside it.
    """
    forms = _checked(forms, (), predictors, subjects)
    c, s = np.asarray(predictors, dtype=np.int64), np.asarray(subjects, dtype=np.int64)
    _, _, rest = _left_over(forms, np.empty(0, dtype=np.int64), c, s)
    whole = np.diagonal(forms, axis1=-2, axis2=-1)[..., s]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(1.0 - rest / np.where(whole > 0, whole, np.nan), 0.0, 1.0)


def _checked(forms: np.ndarray, *indices: Index) -> np.ndarray:
    """Refuse what is not a stack of square matrices that hold all indices."""
    forms = np.asarray(forms, dtype=np.float64)
    if forms.ndim < 2 or forms.shape[-1] != forms.shape[-2]:
        raise InputError(f"forms have shape {forms.shape}; give (…, V, V), the products of V vectors")
    for index in indices:
        outside = [int(i) for i in index if not 0 <= int(i) < forms.shape[-1]]
        if outside:
            raise InputError(f"vector {outside[0]} does not exist: the forms hold {forms.shape[-1]}, from 0")
    return forms


def _left_over(
    forms: np.ndarray, m: np.ndarray, c: np.ndarray, s: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products of what the controls `c` leave: models × subjects, and the squares of models and of subjects."""
    squares = np.diagonal(forms, axis1=-2, axis2=-1)
    across = forms[..., m[:, None], s]
    if not len(c):
        return across, squares[..., m], squares[..., s]
    half = _inverse_root(forms[..., c[:, None], c])
    to_models = half @ forms[..., c[:, None], m]  # (…, rank, models)
    to_subjects = half @ forms[..., c[:, None], s]
    return (
        across - np.swapaxes(to_models, -1, -2) @ to_subjects,
        squares[..., m] - np.square(to_models).sum(axis=-2),
        squares[..., s] - np.square(to_subjects).sum(axis=-2),
    )


def _inverse_root(gram: np.ndarray) -> np.ndarray:
    """A matrix W with WᵀW = F⁺ for every F of a stack of Gram matrices ``(…, C, C)``; NaN where F is not finite."""
    size = np.diagonal(gram, axis1=-2, axis2=-1)
    finite = np.isfinite(gram).all(axis=(-2, -1)) & (size >= 0).all(axis=-1)
    # To unit length first: then collinear controls are told from small ones, which count like any other.
    scale = np.where(finite[..., None] & (size > 0), 1 / np.sqrt(np.where(size > 0, size, 1.0)), 0.0)
    unit = np.where(finite[..., None, None], gram, 0.0) * scale[..., :, None] * scale[..., None, :]
    values, vectors = np.linalg.eigh(unit)
    kept = values > _SPAN
    root = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    whole = root[..., :, None] * np.swapaxes(vectors, -1, -2) * scale[..., None, :]
    return np.where(finite[..., None, None], whole, np.nan)
