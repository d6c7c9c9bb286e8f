"""Formats of frames, which belong to the version of links.

Nodes of one version take each other's frames for their own: who changes a form and not the version
has them break links, or worse, instead of refusing each other with a reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from fluffle.broker.cluster.links.handshake import VERSIONS
from fluffle.broker.cluster.ports import FrameKind
from fluffle.broker.cluster.queue_sessions.codec import FROM_CLIENT, FROM_LEADER, OUTCOMES
from fluffle.broker.queues.quorum.messages import ClientFrame, LeaderFrame
from fluffle.raft.messages import MESSAGES

FORMS = (18, "0a2a9d63041809ab")
"""The newest version, and the digest of its forms.  If they have changed raise the version in
`handshake.py`, the oldest too unless frames of both are understood, and write both here."""


def forms() -> Iterator[str]:
    """A line for each thing that the place or the type of says how bytes are read."""
    yield from (f"{kind.value} {kind.name}" for kind in FrameKind)
    yield from (outcome.name for outcome in OUTCOMES)
    for table in ((ClientFrame, LeaderFrame), FROM_CLIENT, FROM_LEADER, MESSAGES):
        yield from map(form, table)


def form(kind: Any) -> str:
    return " ".join([kind.__name__, *(f"{each.name}:{each.type}" for each in fields(kind))])


def test_a_version_of_links_stands_for_one_form_of_all_frames() -> None:
    digest = hashlib.sha256("\n".join(forms()).encode()).hexdigest()[:16]
    assert (VERSIONS[1], digest) == FORMS, "\n".join(forms())
