"""Check of a proposed change for deletions of protected things that its proposer missed."""

from __future__ import annotations

from fluffle.broker.access.limits import VhostSettings
from fluffle.broker.metadata.change import Fact
from fluffle.broker.metadata.facts import Kind
from fluffle.broker.metadata.state import Proposal, State


def is_against_protection(state: State, proposal: Proposal) -> bool:
    """Not if it rests on what is no longer so: then it changes nothing, and is decided anew."""
    dooms = [fact for fact in proposal.change.puts if fact.kind is Kind.DOOMED]
    return any(is_protected(state, fact) for fact in dooms) and state.holds(
        proposal.change, proposal.revisions
    )


def is_protected(state: State, mark: Fact) -> bool:
    """The virtual host that a fact marks for deletion."""
    known = state.find((Kind.VHOST, mark.key))
    return known is not None and isinstance(known.value, VhostSettings) and known.value.is_protected
