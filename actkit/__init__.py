"""Record a trained network as a laboratory records a brain, analyse the recording, test the claim by a lesion.

Everything public is reachable from here and is loaded when it is first used, so that ``import actkit`` stays light.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actkit.analyses.decoding import decode
    from actkit.analyses.encoding import encode
    from actkit.analyses.neuron_reliability import neuron_reliability
    from actkit.analyses.noise_ceiling import noise_ceiling
    from actkit.analyses.rdm import rdm
    from actkit.analyses.rsa import rsa
    from actkit.analyses.unit_matching import match_units
    from actkit.data_specs.catalogue import load as load_data
    from actkit.extractors.precomputed import import_features
    from actkit.extractors.record import extract
    from actkit.network import Network, open_network
    from actkit.plotting import plot
    from actkit.results import load, save, to_table
    from actkit.stimuli import Stimuli, as_stimuli
    from actkit.store import open_store, verify_store
    from actkit.study import run

try:
    __version__ = version("actkit")
except PackageNotFoundError:  # a source folder that is not installed
    __version__ = "0+unknown"

# Where each public name lives: a module of the core, or an entry point of a room (group, entry, attribute).
_CORE = {
    "Network": "actkit.network",
    "Stimuli": "actkit.stimuli",
    "UnitSet": "actkit.units",
    "as_stimuli": "actkit.stimuli",
    "lesioned": "actkit.lesion",
    "load": "actkit.results",
    "open_network": "actkit.network",
    "open_store": "actkit.store",
    "plot": "actkit.plotting",
    "rank_units": "actkit.ranking",
    "run": "actkit.study",
    "save": "actkit.results",
    "to_table": "actkit.results",
    "verify_store": "actkit.store",
}
_ROOMS = {
    "commonality": ("actkit.analyses", "commonality", "commonality"),
    "decode": ("actkit.analyses", "decoding", "decode"),
    "encode": ("actkit.analyses", "encoding", "encode"),
    "extract": ("actkit.engines", "record", "extract"),
    "import_features": ("actkit.engines", "features", "import_features"),
    "load_data": ("actkit.data_specs", "actkit", "load"),
    "match_units": ("actkit.analyses", "unit_matching", "match_units"),
    "neuron_reliability": ("actkit.analyses", "neuron_reliability", "neuron_reliability"),
    "noise_ceiling": ("actkit.analyses", "noise_ceiling", "noise_ceiling"),
    "rdm": ("actkit.analyses", "rdm", "rdm"),
    "reliability": ("actkit.analyses", "reliability", "reliability"),
    "rsa": ("actkit.analyses", "rsa", "rsa"),
    "selectivity": ("actkit.analyses", "selectivity", "selectivity"),
    "similarity": ("actkit.analyses", "similarity", "similarity"),
    "time_rdms": ("actkit.analyses", "time_rdms", "time_rdms"),
}

__all__ = [
    "Network",
    "Stimuli",
    "UnitSet",
    "as_stimuli",
    "commonality",
    "decode",
    "encode",
    "extract",
    "import_features",
    "lesioned",
    "load",
    "load_data",
    "match_units",
    "neuron_reliability",
    "noise_ceiling",
    "open_network",
    "open_store",
    "plot",
    "rank_units",
    "rdm",
    "reliability",
    "rsa",
    "run",
    "save",
    "selectivity",
    "similarity",
    "time_rdms",
    "to_table",
    "verify_store",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name in _CORE:
        return getattr(importlib.import_module(_CORE[name]), name)
    if name in _ROOMS:
        from actkit import plugins

        group, entry, attribute = _ROOMS[name]
        return getattr(plugins.load(group, entry), attribute)  # type: ignore[arg-type]
    raise AttributeError(f"module 'actkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
