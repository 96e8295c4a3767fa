"""Record a trained network as a laboratory records a brain, analyse the recording, test the claim by a lesion.

Everything public is reachable from here and is loaded when it is first used, so that ``import actkit`` stays light.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actkit.analyses.basis_comparison import compare_bases
    from actkit.analyses.decoding import decode
    from actkit.analyses.decoding_neurons import decode_neurons
    from actkit.analyses.encoding import encode
    from actkit.analyses.encoding_banded import encode_banded
    from actkit.analyses.match_comparison import compare_matches
    from actkit.analyses.match_shuffle import shuffle_match
    from actkit.analyses.matched_transfer import transfer
    from actkit.analyses.neuron_reliability import neuron_reliability
    from actkit.analyses.noise_ceiling import noise_ceiling
    from actkit.analyses.pool_comparison import equalise_pools
    from actkit.analyses.rdm import rdm
    from actkit.analyses.rsa import rsa
    from actkit.analyses.soft_matching import soft_match
    from actkit.analyses.unit_matching import match_units
    from actkit.analyses.variance_partitioning import partition_variance
    from actkit.data_specs.catalogue import load as load_data
    from actkit.extractors.precomputed import import_features
    from actkit.extractors.record import extract
    from actkit.network import Network, open_network
    from actkit.plotting import plot
    from actkit.recordings_files import read_recording
    from actkit.results import load, save, to_table
    from actkit.stimuli import Stimuli, as_stimuli
    from actkit.store import open_store, verify_store
    from actkit.store_pool import pool_store
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
    "pool_store": "actkit.store_pool",
    "rank_units": "actkit.ranking",
    "read_recording": "actkit.recordings_files",
    "run": "actkit.study",
    "save": "actkit.results",
    "to_table": "actkit.results",
    "verify_store": "actkit.store",
}
_ROOMS = {
    "commonality": ("actkit.analyses", "commonality", "commonality"),
    "compare_bases": ("actkit.analyses", "basis_comparison", "compare_bases"),
    "compare_matches": ("actkit.analyses", "match_comparison", "compare_matches"),
    "decode": ("actkit.analyses", "decoding", "decode"),
    "decode_neurons": ("actkit.analyses", "decoding_neurons", "decode_neurons"),
    "encode": ("actkit.analyses", "encoding", "encode"),
    "encode_banded": ("actkit.analyses", "encoding_banded", "encode_banded"),
    "equalise_pools": ("actkit.analyses", "pool_comparison", "equalise_pools"),
    "extract": ("actkit.engines", "record", "extract"),
    "import_features": ("actkit.engines", "features", "import_features"),
    "load_data": ("actkit.data_specs", "actkit", "load"),
    "match_units": ("actkit.analyses", "unit_matching", "match_units"),
    "neuron_reliability": ("actkit.analyses", "neuron_reliability", "neuron_reliability"),
    "noise_ceiling": ("actkit.analyses", "noise_ceiling", "noise_ceiling"),
    "partition_variance": ("actkit.analyses", "variance_partitioning", "partition_variance"),
    "rdm": ("actkit.analyses", "rdm", "rdm"),
    "reliability": ("actkit.analyses", "reliability", "reliability"),
    "rsa": ("actkit.analyses", "rsa", "rsa"),
    "selectivity": ("actkit.analyses", "selectivity", "selectivity"),
    "shuffle_match": ("actkit.analyses", "match_shuffle", "shuffle_match"),
    "similarity": ("actkit.analyses", "similarity", "similarity"),
    "soft_match": ("actkit.analyses", "soft_matching", "soft_match"),
    "time_rdms": ("actkit.analyses", "time_rdms", "time_rdms"),
    "transfer": ("actkit.analyses", "matched_transfer", "transfer"),
}

__all__ = [
    "Network",
    "Stimuli",
    "UnitSet",
    "as_stimuli",
    "commonality",
    "compare_bases",
    "compare_matches",
    "decode",
    "decode_neurons",
    "encode",
    "encode_banded",
    "equalise_pools",
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
    "partition_variance",
    "plot",
    "pool_store",
    "rank_units",
    "rdm",
    "read_recording",
    "reliability",
    "rsa",
    "run",
    "save",
    "selectivity",
    "shuffle_match",
    "similarity",
    "soft_match",
    "time_rdms",
    "to_table",
    "transfer",
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
