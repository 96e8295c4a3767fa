"""The cache of trained networks: weights and provenance under a key of everything that determined them."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from actkit.extractors.weights import file_sha256, load_state_dict
from actkit.results import atomic_write

__all__ = ["cache_folder", "read_cache", "write_cache"]


def cache_folder(cache: str | None) -> Path:
    """Say where trained networks are kept.

    Parameters
    ----------
    cache : str or None
        What the user asked for.

    Returns
    -------
    Path
        That folder, or one in the user's cache.
    """
    if cache is not None:
        return Path(cache).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("actkit") / "networks"


def read_cache(folder: Path, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Read a trained network.

    Parameters
    ----------
    folder : Path
        Its folder in the cache.
    key : str
        Fingerprint of what determined it.

    Returns
    -------
    tuple of (dict of str to torch.Tensor, dict), or None
        Weights and provenance; None where the cache has none, or its files do not belong together.
    """
    try:
        note = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        weights = folder / "weights.safetensors"
        if note["key"] != key or file_sha256(weights) != note["weights_file_sha256"]:
            return None
        return load_state_dict(weights), note["provenance"]
    except (OSError, ValueError, KeyError):
        return None


def write_cache(folder: Path, key: str, module: torch.nn.Module, provenance: Mapping[str, Any]) -> None:
    """Keep a trained network: weights and note go into a folder beside, which is then put in place in one step.

    Parameters
    ----------
    folder : Path
        Its folder in the cache.
    key : str
        Fingerprint of what determined it.
    module : torch.nn.Module
        The network.
    provenance : mapping
        What is known of it; must be JSON-able.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        weights = partial / "weights.safetensors"
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, weights)
        note = {"key": key, "weights_file_sha256": file_sha256(weights), "provenance": dict(provenance)}
        atomic_write(partial / "network.json", json.dumps(note, indent=1, sort_keys=True))
        try:
            os.replace(partial, folder)
        except OSError:  # a folder is there: of an earlier run, damaged, or just written by another process
            replaced = partial.with_suffix(".replaced")
            os.replace(folder, replaced)
            shutil.rmtree(replaced, ignore_errors=True)
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
