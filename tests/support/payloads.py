"""Payloads of frames between nodes, as the other end gets them."""

from __future__ import annotations

from fluffle.broker.cluster.ports import Payload


def joined(payload: Payload) -> bytes:
    """Return a payload in one, as it is received."""
    return payload if isinstance(payload, bytes) else b"".join(payload)
