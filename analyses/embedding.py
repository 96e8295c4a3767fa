"""Maps of stimuli: RDMs laid out in the plane by metric multidimensional scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from pydantic import Field

from actkit.errors import InputError
from actkit.options import Options, with_options
from actkit.recordings import leading_dim, squares, validate_rdms
from actkit.results import describe, fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EmbeddingOptions(Options):
    """Options of :func:`embed`."""

    n_starts: int = Field(
        2, ge=1, description="Starting layouts: classical scaling, then random ones; the best is kept."
    )
    max_iter: int = Field(300, ge=1, description="Most iterations of SMACOF from each start.")
    seed: int = Field(0, ge=0, description="Seed of the random starts.")


@with_options(EmbeddingOptions)
def embed(rdms: xr.Dataset, options: EmbeddingOptions) -> xr.Dataset:
    """Lay the stimuli of each RDM out in two dimensions so that distances match dissimilarities.

    Metric multidimensional scaling by SMACOF (de Leeuw, 1977; ``sklearn.manifold.smacof``). Each map is turned and
    mirrored, not scaled, onto the one before (orthogonal Procrustes), which leaves distances as they are and makes
    neighbouring layers comparable. The quality is Kruskal's stress-1, ``sqrt(sum (d - δ)² / sum d²)`` with map
    distances d and dissimilarities δ: 0 is perfect, above about .2 the map distorts much.

    Parameters
    ----------
    rdms : xarray.Dataset
        RDM dataset of k RDMs over n stimuli. Negative dissimilarities (crossvalidated estimates) count as 0.
        Stimuli whose pairs have no value (NaN) are left out of that map.

    Returns
    -------
    xarray.Dataset
        ``x`` and ``y`` of dims (leading, stimulus), NaN for stimuli left out; ``stress`` and ``n_left_out`` of dim
        (leading). Coordinates of the input are kept.

    Raises
    ------
    InputError
        If it is not an RDM dataset, or fewer than three stimuli have values.
    """
    validate_rdms(rdms)
    dim = leading_dim(rdms)
    matrices = squares(rdms).astype(float)
    n = matrices.shape[1]
    places = np.full((len(matrices), n, 2), np.nan)
    stress, left_out = np.zeros(len(matrices)), np.zeros(len(matrices), dtype=np.int64)
    before: np.ndarray | None = None
    for number, matrix in enumerate(matrices):
        kept = _complete(matrix)
        left_out[number] = n - len(kept)
        if len(kept) < 3:
            raise InputError(
                f"{dim} {rdms[dim].values[number]!s}: only {len(kept)} of {n} stimuli have dissimilarities, too few "
                "for a map; leave this RDM out"
            )
        delta = np.clip(matrix[np.ix_(kept, kept)], 0, None)
        found, stress[number] = _scale(delta, options)
        full = np.full((n, 2), np.nan)
        full[kept] = found
        if before is not None:
            full = _turn(full, before)
        places[number] = before = full
    coords = {name: coord for name, coord in rdms.coords.items() if set(coord.dims) <= {dim, "stimulus"}}
    dataset = xr.Dataset(
        {
            "x": ((dim, "stimulus"), places[:, :, 0]),
            "y": ((dim, "stimulus"), places[:, :, 1]),
            "stress": ((dim,), stress),
            "n_left_out": ((dim,), left_out),
        },
        coords=coords,
    )
    return describe(
        dataset,
        "embedding",
        options,
        {"rdms": fingerprint(rdms)},
        measure=str(rdms.attrs.get("measure", "")),
        name=str(rdms.attrs.get("name", "")),
        simulated=rdms.attrs.get("simulated"),
    )


def _complete(matrix: np.ndarray) -> np.ndarray:
    """Stimuli that all have dissimilarities to each other: the one with most gaps goes until none is left."""
    kept = np.arange(len(matrix))
    gaps = np.isnan(matrix)
    while len(kept) and (count := gaps[np.ix_(kept, kept)].sum(axis=0)).any():
        kept = np.delete(kept, int(np.argmax(count)))
    return kept


def _scale(delta: np.ndarray, options: EmbeddingOptions) -> tuple[np.ndarray, float]:
    """The best of several SMACOF runs and its stress-1."""
    from sklearn.manifold import smacof

    if not delta.any():
        return np.zeros((len(delta), 2)), 0.0
    unit = delta.mean()
    best: tuple[np.ndarray, float] | None = None
    for start in range(options.n_starts):
        if start == 0:
            layout = _classical(delta / unit)
        else:
            generator = np.random.Generator(np.random.Philox(key=[options.seed, start]))
            layout = generator.normal(size=(len(delta), 2))
        found, _ = smacof(
            delta / unit,
            n_components=2,
            init=layout,
            n_init=1,
            max_iter=options.max_iter,
            eps=1e-6,
            normalized_stress=False,
        )
        value = _stress(found, delta / unit)
        # A later start has to be better by more than rounding: otherwise the winner would hang on the BLAS in use.
        if best is None or value < best[1] - 1e-9:
            best = (found * unit, value)
    assert best is not None
    return best


def _classical(delta: np.ndarray) -> np.ndarray:
    """Classical scaling (Torgerson, 1952): the two leading eigenvectors of the doubly centred squared RDM."""
    n = len(delta)
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centre @ (delta**2) @ centre)
    vectors = vectors[:, ::-1][:, :2]
    # Eigenvectors have no sign of their own: the entry of largest size is made positive.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), [0, 1]])
    # Coinciding points have no direction to move apart in, so flat axes get a little of their eigenvector.
    return vectors * np.sqrt(np.clip(values[::-1][:2], 1e-6, None))


def _stress(places: np.ndarray, delta: np.ndarray) -> float:
    """Kruskal's stress-1."""
    from scipy.spatial.distance import pdist, squareform

    d, wanted = pdist(places), squareform(delta, checks=False)
    total = float((d**2).sum())
    return float(np.sqrt(((d - wanted) ** 2).sum() / total)) if total else 1.0


def _turn(places: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotate and mirror a map onto another by the stimuli they share."""
    from scipy.linalg import orthogonal_procrustes

    both = np.isfinite(places[:, 0]) & np.isfinite(target[:, 0])
    if both.sum() < 2:
        return places
    centre = places[both].mean(axis=0)
    rotation, _ = orthogonal_procrustes(places[both] - centre, target[both] - target[both].mean(axis=0))
    return (places - centre) @ rotation


def plot(result: xr.Dataset, **options: Any) -> Figure:
    """Draw the maps; see :func:`actkit.analyses.rdm_plot.plot_maps`.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`embed` returned.
    **options
        ``stimuli``, ``labels``, ``title``, ``most``.

    Returns
    -------
    matplotlib.figure.Figure
        One panel for each RDM.
    """
    from actkit.analyses.rdm_plot import plot_maps

    return plot_maps(result, **options)


def caption(result: xr.Dataset, **options: Any) -> str:
    """Say in sentences what the maps show.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`embed` returned.
    **options
        Those given to :func:`plot`.

    Returns
    -------
    str
        Plain text.
    """
    from actkit.analyses.rdm_plot import map_caption

    return map_caption(result, **options)
