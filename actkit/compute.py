"""Memory budgets, devices, blocks and progress: what long computations share."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from actkit.errors import InputError

if TYPE_CHECKING:
    from tqdm import tqdm

_DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_bytes(size: str | int | float) -> int:
    """Read a size such as ``"2GB"``, ``"512 MiB"`` or a number of bytes.

    Parameters
    ----------
    size : str, int or float
        Decimal (kB, MB, GB, TB) and binary (KiB, MiB, GiB, TiB) units, in any case.

    Returns
    -------
    int
        Bytes, at least 1.

    Raises
    ------
    InputError
        If the text is not a size or the size is not positive.

    Examples
    --------
    >>> parse_bytes("2GB"), parse_bytes("4MiB")
    (2000000000, 4194304)
    """
    text = str(size).strip()
    match = re.fullmatch(r"([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([KMGT]I?)?B?", text, flags=re.IGNORECASE)
    if not match:
        raise InputError(f"{size!r} is not a size; write it like '2GB', '512MiB' or a number of bytes")
    value = int(float(match[1]) * (_DECIMAL | _BINARY)[(match[2] or "").upper()])
    if value < 1:
        raise InputError(f"a size must be at least one byte, not {size!r}")
    return value


def format_bytes(n: float) -> str:
    """Write a number of bytes for people.

    Parameters
    ----------
    n : float
        Bytes.

    Returns
    -------
    str
        With three digits at the most and a decimal unit.

    Examples
    --------
    >>> format_bytes(4194304)
    '4.19 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n) < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def choose_device(device: str = "auto") -> str:
    """Settle on a torch device.

    Parameters
    ----------
    device : str
        ``"auto"`` takes a GPU where there is one (CUDA, then Apple's MPS); any torch device name is kept.

    Returns
    -------
    str
        A device name that torch accepts.

    Raises
    ------
    InputError
        If the device does not exist on this machine.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here ({error}); try 'auto' or 'cpu'") from None
    return device


def spans(n: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut ``range(n)`` into consecutive blocks.

    Parameters
    ----------
    n : int
        Length.
    step : int
        Block size; the last block may be smaller.

    Yields
    ------
    tuple of int
        Start (included) and stop (excluded).

    Examples
    --------
    >>> list(spans(7, 3))
    [(0, 3), (3, 6), (6, 7)]
    """
    for start in range(0, n, step):
        yield start, min(start + step, n)


def progress(
    iterable: Iterable[Any] | None = None,
    total: int | None = None,
    desc: str = "",
    unit: str = "it",
    enabled: bool | None = None,
) -> tqdm[Any]:
    """Show a progress bar with rate and time left.

    Parameters
    ----------
    iterable : iterable, optional
        What to go through; leave out to update by hand.
    total : int, optional
        Number of steps where the iterable has no length.
    desc : str
        What is going on.
    unit : str
        Name of one step.
    enabled : bool, optional
        True or False decides; by default there is a bar only when standard error is a terminal.

    Returns
    -------
    tqdm.tqdm
        The bar, which is also the iterator.
    """
    from tqdm import tqdm

    show = sys.stderr.isatty() if enabled is None else enabled
    return tqdm(
        iterable, total=total, desc=desc, unit=unit, disable=not show, file=sys.stderr, dynamic_ncols=True, leave=False
    )
