"""Controls of unit matching, together: what a match must withstand before it is called one of single units.

========================  ============================================================================================
:func:`compare_bases`     Are the axes privileged? The match again with random rotations of the channel basis.
:func:`equalise_pools`    Does a layer win by its size? The match again with equally many units drawn from every layer.
:func:`shuffle_match`     Is a neuron's unit its own? Every neuron scored with the unit matched to another one.
:func:`compare_matches`   Does training matter? Two matches of the same neurons, a network and its untrained twin.
========================  ============================================================================================

The permutation of stimuli is part of :func:`actkit.analyses.unit_matching.match_units` itself.
"""

from __future__ import annotations

from actkit.analyses.basis_comparison import BasesOptions, compare_bases
from actkit.analyses.match_comparison import MatchComparisonOptions, compare_matches
from actkit.analyses.match_shuffle import ShuffleOptions, shuffle_match
from actkit.analyses.pool_comparison import PoolsOptions, equalise_pools

__all__ = [
    "BasesOptions",
    "MatchComparisonOptions",
    "PoolsOptions",
    "ShuffleOptions",
    "compare_bases",
    "compare_matches",
    "equalise_pools",
    "shuffle_match",
]
