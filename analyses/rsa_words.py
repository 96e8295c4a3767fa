"""What figures and captions of an RSA result say: names, what errors and marks stand for, sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from actkit import plotting
from actkit.analyses.rsa_reading import attribute, ceiling, column, kinds, scope, simulated
from actkit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

Test = Literal["auto", "permutation", "zero"]

# What the error bands stand for, by what the result generalises to.
SCOPE = {"subject": "subjects", "stimulus": "stimuli", "both": "subjects and stimuli"}
CORRECTIONS = {
    "fdr": "false discovery rate, Benjamini–Hochberg",
    "holm": "Holm",
    "none": "not corrected",
}


def measure(result: xr.Dataset) -> str:
    """Name the measure that compared RDMs, as axis labels do.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    str
        Text such as ``Spearman ρ`` or ``partial Spearman ρ``.
    """
    words = plotting.measure_words(str(attribute(result, "compare", default="similarity")))
    if not result.attrs.get("partial"):
        return words
    half = str(attribute(result, "semipartial", default=False)).lower() in ("1", "true")
    return f"{'semi-partial' if half else 'partial'} {words}"


def how_sentences(result: xr.Dataset) -> list[str]:
    """Say in a caption what scores are freed of, and how fitted models were cross-validated.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    list of str
        None, one or two sentences.
    """
    text = []
    if partial := str(result.attrs.get("partial", "")):
        text.append(f"RDMs are {partial}.")
    if folds := str(result.attrs.get("cross_validation", "")):
        text.append(f"All scores are cross-validated: {folds}.")
    if "fit" in result.coords:
        fitted = result["model"].values[result["fit"].values.astype(str) != "fixed"].astype(str)
        if len(fitted):
            text.append(f"Fitted to the training folds: {', '.join(fitted)}.")
    return text


def null_sentences(result: xr.Dataset) -> list[str]:
    """Name in a caption the null hypothesis of the t tests.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    list of str
        None or one sentence.
    """
    null = str(result.attrs.get("null", ""))
    return [f"Null hypothesis of the t tests: {null.removesuffix('.')}."] if null else []


@dataclass(frozen=True)
class Marks:
    """The test behind filled and hollow marks."""

    p: np.ndarray
    words: str

    @property
    def tested(self) -> bool:
        """Whether anything was tested."""
        return bool(np.isfinite(self.p).any())


def marks_of(result: xr.Dataset, test: Test = "auto") -> Marks:
    """Choose the test of the scores against zero that marks show.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    test : {"auto", "permutation", "zero"}
        The stimulus-label permutation test, or the t test of the mean against 0; ``auto`` takes the permutation test
        where it was run, so that all figures of a result agree.

    Returns
    -------
    Marks
        p-values along model (and time), and the words for captions.

    Raises
    ------
    InputError
        If `test` is something else, or the result has no such test.
    """
    if test not in ("auto", "permutation", "zero"):
        raise InputError(f"test is {test!r}; choose 'auto', 'permutation' or 'zero' (t test against 0)")
    permuted, t_test = column(result, "p_value"), column(result, "p_zero_corrected")
    if test == "permutation" or (test == "auto" and np.isfinite(permuted).any()):
        if not np.isfinite(permuted).any():
            raise InputError("the result has no permutation test (n_permutations was 0); use test='zero' or 'auto'")
        permutations = attribute(result, "n_permutations")
        default = "one-sided stimulus-label permutation test of the subject mean, maximum statistic" + (
            f", {int(permutations):,} permutations" if permutations else ""
        )
        return Marks(permuted, str(attribute(result, "test", default=default)))
    if test == "zero" and not np.isfinite(t_test).any():
        raise InputError("the result has no t test against 0 (p_zero_corrected); use test='permutation' or 'auto'")
    words = f"one-sided t test of the mean against 0, generalising to new {SCOPE[scope(result)]}"
    n = int(np.isfinite(t_test).sum())
    return Marks(t_test, f"{words} ({correction_words(result, counted(n, 'model'))})")


def correction_words(result: xr.Dataset, over: str) -> str:
    """Say how p-values were corrected.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    over : str
        What they were corrected over.

    Returns
    -------
    str
        Text such as ``Holm, over 13 models``.
    """
    name = str(attribute(result, "correction", default="")).lower()
    if name == "none":
        return "not corrected for the number of tests"
    if "selected_from" in result.attrs:
        what = "pairs" if "pair" in over else "models"
        over = f"all {what} of the {result.attrs['selected_from']} compared"
    return f"{CORRECTIONS.get(name, name or 'corrected')}, over {over}"


def counted(n: int, what: str) -> str:
    """Count things in words.

    Parameters
    ----------
    n : int
        How many.
    what : str
        One of them, such as ``model`` or ``pair of models``.

    Returns
    -------
    str
        Text such as ``3 pairs of models``.

    Examples
    --------
    >>> counted(1, "model"), counted(3, "pair of models")
    ('1 model', '3 pairs of models')
    """
    first, _, rest = what.partition(" ")
    return f"{n} {first}{'' if n == 1 else 's'}{f' {rest}' if rest else ''}"


def name_of(result: xr.Dataset, row: int, most: int = 32) -> str:
    """Name a model as figures do: layers without their network where there is just one.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    row : int
        Place along model.
    most : int
        Letters to keep; a longer name is cut in its middle, where names differ least.

    Returns
    -------
    str
        At most `most` letters.
    """
    name = str(result["model"].values[row])
    layer = kinds(result) == "layer"
    if layer[row] and "layer" in result.coords and "network" in result.coords:
        networks = set(result["network"].values[layer].tolist())
        alone = str(result["layer"].values[row])
        if len(networks) == 1 and alone not in result["model"].values[~layer]:
            name = alone
    return shortened(name, most)


def names_of(result: xr.Dataset, rows: np.ndarray, most: int = 32) -> list[str]:
    """Name models as :func:`name_of` does, and keep names apart that shortening would make equal.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    rows : numpy.ndarray of int
        Places along model.
    most : int
        Letters to keep.

    Returns
    -------
    list of str
        At most `most` letters each; where cut names are equal, what they share at their front is cut instead.
    """
    whole = [name_of(result, row, 10_000) for row in rows]
    short = [shortened(name, most) for name in whole]
    for name in {name for name in short if short.count(name) > 1}:
        same = [i for i, other in enumerate(short) if other == name]
        letters = zip(*(whole[i] for i in same), strict=False)
        shared = next((at for at, found in enumerate(letters) if len(set(found)) > 1), 0)
        breaks = [at + 1 for at in range(shared) if whole[same[0]][at] in " /_-"]
        start = breaks[-2] if len(breaks) > 1 else shared
        for i in same:
            rest = whole[i][start:]
            short[i] = f"…{rest if len(rest) < most else rest[: most - 2] + '…'}"
    return short


def shortened(name: str, most: int) -> str:
    """Cut a long text in its middle.

    Parameters
    ----------
    name : str
        Any text.
    most : int
        Letters to keep.

    Returns
    -------
    str
        At most `most` letters, with an ellipsis where some were cut.

    Examples
    --------
    >>> shortened("a very long model name", 13), shortened("short", 13)
    ('a very l…name', 'short')
    """
    if len(name) <= most:
        return name
    front = (most - 1) * 2 // 3
    return f"{name[:front]}…{name[len(name) - (most - 1 - front) :]}"


def count_words(result: xr.Dataset) -> str:
    """How many subjects and stimuli.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA or noise ceiling result.

    Returns
    -------
    str
        Text such as ``5 subjects, 92 stimuli``.
    """
    parts = []
    if "subject" in result.sizes:
        n = result.sizes["subject"]
        parts.append(f"{n} subject" + ("s" if n != 1 else ""))
    stimuli = attribute(result, "n_stimuli", default=result.sizes.get("stimulus"))
    if stimuli:
        parts.append(f"{int(stimuli)} stimuli")
    return ", ".join(parts)


def data_words(result: xr.Dataset) -> str:
    """Name of the data, with IT as brain scientists write it.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA or noise ceiling result.

    Returns
    -------
    str
        The name for headlines.
    """
    words = str(attribute(result, "data", "data_name", "name", default="data")).replace("_", " ").split(" ")
    return " ".join("IT" if word == "it" else word for word in words)


def band_words(result: xr.Dataset, bands: str) -> str:
    """Say what the error bands are, in a few words.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    bands : {"error", "interval"}
        As given to the figure.

    Returns
    -------
    str
        Text such as ``± 1 standard error over stimuli``.
    """
    if bands == "interval":
        return f"95 % confidence interval over {SCOPE[scope(result)]}"
    return f"± 1 standard error over {SCOPE[scope(result)]}"


def first_sentence(result: xr.Dataset, what: str = "") -> str:
    """Begin a caption: measure, data, numbers.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    what : str
        What is shown; by default the mean measure between model RDMs and subjects' RDMs.

    Returns
    -------
    str
        One sentence.
    """
    count = count_words(result)
    who = f"{data_words(result)} ({count})" if count else data_words(result)
    what = what or f"Mean {measure(result)} between model RDMs and the RDM of each subject"
    return f"{what}; {'simulated data: ' if simulated(result) else ''}{who}."


def band_sentence(result: xr.Dataset, bands: str, what: str) -> str:
    """Say in a caption what the error bands are and where they come from.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.
    bands : {"error", "interval"}
        As given to the figure.
    what : str
        What stands for the error, such as ``Bars``.

    Returns
    -------
    str
        One sentence.
    """
    draws = attribute(result, "n_draws")
    drawn = f" (bootstrap, {int(draws):,} draws)" if draws and scope(result) != "subject" else ""
    reason = str(attribute(result, "generalise_to_reason", default=""))
    return f"{what} are {band_words(result, bands)}{drawn}{f'; {reason}' if reason else ''}."


def ceiling_sentences(result: xr.Dataset) -> list[str]:
    """Say in a caption what the grey band is, and which models pass it and why they can.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    list of str
        None, one or two sentences.
    """
    found = ceiling(result)
    if not found:
        return []
    low, high = (plotting.short(value, 3) for value in found)
    text = [
        f"The grey band is the noise ceiling, {low} to {high}: the range in which the best possible model would "
        "score, given how much the subjects differ."
    ]
    passing = [str(name) for name in result["model"].values[column(result, "mean") > found[1]]]
    if passing and result.attrs.get("compare") == "spearman":
        text.append(
            f"Above it: {', '.join(passing)}. Spearman's upper ceiling holds for RDMs without ties; a model with "
            "very many can pass it, which Pearson and cosine rule out."
        )
    return text


def undefined_sentences(result: xr.Dataset) -> list[str]:
    """Name in a caption the models that have no score.

    Parameters
    ----------
    result : xarray.Dataset
        An RSA result.

    Returns
    -------
    list of str
        None or one sentence.
    """
    means = column(result, "mean")
    gone = np.isnan(means) if means.ndim == 1 else np.isnan(means).all(axis=1)
    missing = [str(name) for name in result["model"].values[gone]]
    if not missing:
        return []
    why = "constant or incomplete" + (", or nothing is left of it" if result.attrs.get("partial") else "")
    return [f"Without a score, since their RDM is {why}: {', '.join(missing)}."]
