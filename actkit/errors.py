"""The exceptions of actkit: every message names the value, the consequence and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ActkitError(Exception):
    """Base of every error that actkit raises on purpose."""


class InputError(ActkitError, ValueError):
    """A value given by the caller cannot be used."""


class LayerError(InputError):
    """A layer does not exist, never runs or cannot be recorded."""


class StimulusError(InputError):
    """A stimulus cannot be read, or its id is not unique."""


class StoreError(ActkitError):
    """A store cannot be written or read."""


class IncompleteStoreError(StoreError):
    """A store was opened before its last block was written."""


class CorruptStoreError(StoreError):
    """Bytes on disk are missing or do not match their checksum."""


class DiskFullError(StoreError, OSError):
    """The disk filled up while a store was written; the store can be resumed."""


class DataError(ActkitError):
    """A data set is missing, incomplete or not what its spec says."""


class MissingExtraError(ActkitError, ImportError):
    """An optional dependency is needed and not installed."""


class PluginError(ActkitError):
    """An entry point cannot be found or loaded."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """Name the known words closest to a mistyped one.

    Parameters
    ----------
    name : str
        The word that was not found.
    known : iterable of str
        The words that exist.
    n : int
        How many to offer at most.

    Returns
    -------
    str
        ``"nearest: 'a', 'b'"``, or a list of what exists when nothing is close.

    Examples
    --------
    >>> nearest("layer5", ["layer1", "layer4", "fc"])
    "nearest: 'layer4', 'layer1'"
    """
    words = list(known)
    close = difflib.get_close_matches(name, words, n=n, cutoff=0.6)
    if close:
        return "nearest: " + ", ".join(repr(word) for word in close)
    shown = ", ".join(repr(word) for word in words[:12])
    return f"there are: {shown}" + (f", … ({len(words)} in all)" if len(words) > 12 else "")


def require(module: str, extra: str, purpose: str) -> None:
    """Refuse early, naming the extra to install, when an optional module is missing.

    Parameters
    ----------
    module : str
        Importable name of the optional dependency.
    extra : str
        The actkit extra that installs it.
    purpose : str
        What needs it, for the message.

    Raises
    ------
    MissingExtraError
        If the module cannot be found.
    """
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingExtraError(
            f"{purpose} needs the package {module!r}, which is not installed. "
            f"Install it with: pip install 'actkit[{extra}]'"
        )
