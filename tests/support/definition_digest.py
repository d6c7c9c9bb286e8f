"""Digest of definitions, equal if and only if nodes have the same."""

from __future__ import annotations

import hashlib

from fluffle.broker.durability.fact_codec import encode, encode_key
from fluffle.broker.metadata.state import MetadataState


def digest_of(state: MetadataState) -> str:
    """Equal on all nodes that have applied the same."""
    facts = sorted(
        (kind, encode_key(key), encode(kind, known.value), known.revision)
        for (kind, key), known in state.values().items()
    )
    outcomes = [
        (node, each.boot, each.known_below, sorted(each.applied.items()))
        for node, each in sorted(state.outcomes.items())
    ]
    return hashlib.sha256(repr((state.last_revision, facts, outcomes)).encode()).hexdigest()
