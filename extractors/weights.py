"""Reading weights without running code, and matching them to a module.

A pickle may run any code when it is loaded. So weights come from safetensors files, or from
``torch.load(weights_only=True)``, which restores tensors and plain containers and refuses the rest.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file

from actkit.errors import InputError, nearest
from actkit.options import Options

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")


class NetworkOptions(Options):
    """Options that every extractor shares."""

    name: str | None = Field(
        None, description="Name of the network in stores, tables and figures; none: from the model."
    )


class SeededOptions(NetworkOptions):
    """Options of extractors that can initialise a network at random."""

    seed: int = Field(0, ge=0, description="Seed of random weights; unused with trained ones.")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw a module's random weights from a seed, and leave torch's global generator as it was.

    Parameters
    ----------
    seed : int
        Seed of the CPU generator inside the context. Modules built inside must be built on the CPU.
    """
    # Initialisers of torch.nn read the global CPU generator and take no other: it is borrowed and put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a file as hexadecimal digits, read in blocks of one megabyte.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def load_state_dict(path: str | Path, key: str | None = None) -> dict[str, torch.Tensor]:
    """Read a state dict from a safetensors file or from a file that ``torch.save`` wrote.

    The format is told by the content, not by the name.

    Parameters
    ----------
    path : str or Path
        The file.
    key : str, optional
        Where the state dict lies inside a checkpoint (``"state_dict"``; dots go deeper). By default the file's own
        top level, or else the one usual key (``state_dict``, ``model_state_dict``, ``model``, …) that holds tensors.

    Returns
    -------
    dict of str to torch.Tensor
        On the CPU, in the file's order.

    Raises
    ------
    InputError
        If the file is missing, is neither format, needs unpickling of anything but tensors and plain containers,
        or holds no state dict at `key`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weights file {str(path)!r}; give the path of a safetensors file or state dict")
    content = load_file(path) if _is_safetensors(path) else _load_tensors_only(path)
    return _find_state(content, key, path)


def load_into(
    module: torch.nn.Module, state: Mapping[str, torch.Tensor], strict: bool = True, prefix: str | None = None
) -> dict[str, list[str]]:
    """Load a state dict into a module, and say in words what does not fit.

    Parameters
    ----------
    module : torch.nn.Module
        Receives the weights.
    state : mapping of str to torch.Tensor
        Names and weights.
    strict : bool
        Refuse when names are missing or left over. When False they are reported in the result; a tensor of
        another shape is an error all the same.
    prefix : str, optional
        Cut from the start of every name that has it; a dot is added at its end if it lacks one. By default
        ``module.`` (left by ``DataParallel``) and ``_orig_mod.`` (left by ``torch.compile``) are cut when every
        name starts with it.

    Returns
    -------
    dict
        ``{"missing": [...], "unexpected": [...]}``: weights left at their initial value, weights not used.

    Raises
    ------
    InputError
        Naming the parameters that do not fit, with the nearest names of the other side.
    """
    state = _without_prefix(dict(state), prefix)
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    wrong = [name for name in state if name in own and state[name].shape != own[name].shape]
    if wrong:
        shown = "; ".join(f"{n!r} is {tuple(state[n].shape)}, needed {tuple(own[n].shape)}" for n in wrong[:5])
        raise InputError(
            f"{len(wrong)} of {len(state)} weights have another shape than {type(module).__name__} needs: {shown}. "
            "The file belongs to another architecture or other arguments (such as the number of classes)"
        )
    if len(missing) == len(own) and own:
        raise InputError(
            f"no weight of the file fits {type(module).__name__}: the file has {_some(unexpected)}, the module needs "
            f"{_some(missing)}. Give prefix= if the names only start differently, or key= if the file holds several"
        )
    if strict and (missing or unexpected):
        parts = []
        if missing:
            parts.append(f"missing from the file: {_some(missing)} ({nearest(missing[0], unexpected or list(state))})")
        if unexpected:
            parts.append(f"not in the module: {_some(unexpected)} ({nearest(unexpected[0], missing or list(own))})")
        raise InputError(
            f"the file's weights do not fit {type(module).__name__}: " + "; ".join(parts) + ". Choose the architecture "
            "that was trained, or strict=False to load what fits and leave the rest at its initial value"
        )
    module.load_state_dict(state, strict=False)
    return {"missing": missing, "unexpected": unexpected}


def _is_safetensors(path: Path) -> bool:
    """Tell by the layout: eight bytes of header length, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _load_tensors_only(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on pickle protocols: what cannot be read is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next(
            (line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), ""
        )
        raise InputError(
            f"{str(path)!r} is not a plain state dict: loading it would unpickle objects, and a pickle can run any "
            f"code, so it was refused{f' ({reason})' if reason else ''}. Where you trust it, save its weights alone: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{str(path)!r} is neither a safetensors file nor a state dict saved by torch.save "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            "Save one with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from None


def _find_state(content: Any, key: str | None, path: Path) -> dict[str, torch.Tensor]:
    if key is not None:
        place = content
        for part in key.split("."):
            if not isinstance(place, Mapping) or part not in place:
                known = [str(k) for k in place] if isinstance(place, Mapping) else []
                raise InputError(f"{str(path)!r} has no entry {key!r}; {nearest(part, known)}")
            place = place[part]
        if _is_state(place):
            return dict(place)
        raise InputError(f"the entry {key!r} of {str(path)!r} is no state dict (names to tensors); give another key=")
    if _is_state(content):
        return dict(content)
    if isinstance(content, Mapping):
        found = [name for name in STATE_KEYS if _is_state(content.get(name))]
        if len(found) == 1:
            return dict(content[found[0]])
        states = [str(name) for name, value in content.items() if _is_state(value)]
        raise InputError(
            f"{str(path)!r} is a checkpoint with the entries {_some([str(k) for k in content])}, and "
            + (f"several of them hold weights ({_some(states)})" if states else "none of them holds weights")
            + "; give the one to load as key="
        )
    raise InputError(f"{str(path)!r} holds a {type(content).__name__}, not a state dict (names to tensors)")


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping) and len(content) > 0 and all(isinstance(v, torch.Tensor) for v in content.values())
    )


def _without_prefix(state: dict[str, torch.Tensor], prefix: str | None) -> dict[str, torch.Tensor]:
    if prefix is not None:
        start = prefix if prefix.endswith(".") or not prefix else prefix + "."
        if not any(name.startswith(start) for name in state):
            raise InputError(f"no weight's name starts with the prefix {start!r}; the file has {_some(list(state))}")
        return {name.removeprefix(start): value for name, value in state.items()}
    for start in ("_orig_mod.", "module.", "_orig_mod."):
        if state and all(name.startswith(start) for name in state):
            state = {name.removeprefix(start): value for name, value in state.items()}
    return state


def _some(names: list[str], n: int = 4) -> str:
    shown = ", ".join(repr(name) for name in names[:n])
    return shown + (f", … ({len(names)} in all)" if len(names) > n else "")
