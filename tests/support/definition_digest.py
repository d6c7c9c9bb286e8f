"""Digest of definitions, equal if and only if nodes have the same."""

from __future__ import annotations

import hashlib

from fluffle.broker.durability.definitions.change_codec import encode_state
from fluffle.broker.metadata.state import MetadataState


def digest_of(state: MetadataState) -> str:
    """Equal on all nodes that have applied the same."""
    return hashlib.sha256(encode_state(state)).hexdigest()
