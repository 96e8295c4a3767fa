"""The linear classifiers of every decoding analysis, and the scaling that goes before them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

__all__ = ["ABOUT", "PENALTY", "WORDS", "Classifier", "classify", "scaled", "standardised"]

Classifier = Literal["logistic", "ridge", "svm", "lda", "nearest_centroid"]
ABOUT = (
    "Linear classifier: multinomial logistic regression, ridge regression on class codes, a linear support vector "
    "machine (one against one), linear discriminant analysis with Ledoit-Wolf shrinkage, or the nearest class mean."
)
PENALTY = (
    "L2 penalty: ridge's alpha, and 1/C of logistic regression and the support vector machine; the others have none. "
    "Patterns are divided by the square root of their width, so that one value suits any width."
)
WORDS = {
    "logistic": "logistic regression",
    "ridge": "ridge classifier",
    "svm": "linear support vector machine",
    "lda": "linear discriminant analysis",
    "nearest_centroid": "nearest class mean",
}


def classify(
    train: np.ndarray,
    classes: np.ndarray,
    test: np.ndarray,
    classifier: Classifier,
    penalty: float = 1.0,
    n_features: int | None = None,
) -> np.ndarray:
    """Fit a linear classifier and guess the classes of other patterns.

    Parameters
    ----------
    train : numpy.ndarray, shape (n_train, n_features)
        Patterns to learn from.
    classes : numpy.ndarray, shape (n_train,)
        Their classes.
    test : numpy.ndarray, shape (n_test, n_features)
        Patterns to guess.
    classifier : {"logistic", "ridge", "svm", "lda", "nearest_centroid"}
        The classifier. None of them changes where features are rotated.
    penalty : float
        L2 penalty: ridge's alpha, and 1/C of logistic regression and the support vector machine.
    n_features : int, optional
        Width of the patterns before they were rotated into fewer coordinates, which sets the shrinkage of the
        discriminant analysis; that of `train` by default.

    Returns
    -------
    numpy.ndarray, shape (n_test,)
        The classes guessed.

    References
    ----------
    Ledoit & Wolf (2004), A well-conditioned estimator for large-dimensional covariance matrices, Journal of
    Multivariate Analysis 88.
    """
    model: Any
    if classifier == "svm":
        from sklearn.svm import SVC

        model = SVC(kernel="linear", C=1 / penalty)
    elif classifier == "logistic":
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1 / penalty, max_iter=5000)
    elif classifier == "ridge":
        from sklearn.linear_model import RidgeClassifier

        model = RidgeClassifier(alpha=penalty)
    elif classifier == "lda":
        return _discriminant(train, classes, test, n_features or train.shape[1])
    else:
        return _nearest_mean(train, classes, test)
    return np.asarray(model.fit(train, classes).predict(test))


def _nearest_mean(train: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class with the nearest mean; scikit-learn's spends most of its time on checks where samples are few."""
    classes, means = _class_means(train, y)[:2]
    distance = (means**2).sum(axis=1) - 2 * test @ means.T
    return np.asarray(classes[distance.argmin(axis=1)])


def _class_means(train: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, their means, and the class number of each pattern."""
    classes, k = np.unique(y, return_inverse=True)
    return classes, np.stack([train[k == c].mean(axis=0) for c in range(len(classes))]), k


def _discriminant(train: np.ndarray, y: np.ndarray, test: np.ndarray, width: int) -> np.ndarray:
    """Linear discriminant analysis with the covariance within classes pooled, and shrunk to a multiple of identity.

    scikit-learn's shrinks each class by itself after scaling its features, which depends on their basis; pooled and
    unscaled, trace and squares are those of the full patterns whatever the coordinates.
    """
    classes, means, k = _class_means(train, y)
    counts = np.bincount(k)
    residual = train - means[k]
    n = len(residual)
    covariance = residual.T @ residual / n
    energy = np.einsum("ij,ij->i", residual, residual)
    mu = energy.sum() / n / width
    if mu > 0:
        squares = float((covariance**2).sum())
        noise = max((float(energy @ energy) / n - squares) / (n * width), 0.0)
        distance = squares / width - mu**2
        share = min(noise, distance) / distance if distance > 0 else 1.0
        covariance *= 1 - share
        covariance[np.diag_indices_from(covariance)] += max(share * mu, 1e-12 * mu)
    else:  # classes without spread: the nearest mean
        covariance = np.eye(train.shape[1])
    weights = np.linalg.solve(covariance, means.T)
    score = test @ weights - 0.5 * np.einsum("kj,jk->k", means, weights) + np.log(counts / n)
    return np.asarray(classes[score.argmax(axis=1)])


def scaled(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Scale features to mean 0 and variance 1 over the training patterns.

    Parameters
    ----------
    values : numpy.ndarray, shape (n, n_features)
        Patterns in float64.
    train : numpy.ndarray of bool or int
        Which rows the mean and the standard deviation are taken from.

    Returns
    -------
    numpy.ndarray, shape (n, n_features)
        All patterns, scaled; features that are constant over the training patterns are 0.
    """
    mean = values[train].mean(axis=0)
    centred = values - mean
    own = centred[train]
    scale = np.sqrt(np.mean(own**2, axis=0))
    # A spread of a few rounding steps is none: dividing by it would blow rounding errors up to signals.
    constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean) * np.sqrt(len(own))
    centred /= np.where(constant, 1.0, scale)
    centred[:, constant] = 0.0
    return centred


def standardised(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Scale features as :func:`scaled` does, and divide by √(number of features).

    Parameters
    ----------
    values : numpy.ndarray, shape (n, n_features)
        Patterns in float64.
    train : numpy.ndarray of bool or int
        Which rows the mean and the standard deviation are taken from.

    Returns
    -------
    numpy.ndarray, shape (n, n_features)
        Patterns whose squared length is about 1, whatever their width.
    """
    return scaled(values, train) / np.sqrt(values.shape[1])
