"""Digest of an image, by which tests compare the members of a queue."""

from __future__ import annotations

from hashlib import blake2b

from fluffle.broker.queues.quorum.snapshot import canonical_form
from fluffle.broker.queues.quorum.state import QueueImage

DIGEST_BYTES = 16


def image_digest(image: QueueImage) -> bytes:
    """Digest that is equal on all members that have applied the same entries."""
    return blake2b(canonical_form(image.state, image.version), digest_size=DIGEST_BYTES).digest()
