"""Dependencies between facts: what must exist for a fact to exist."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from fluffle.broker.metadata.change import Name
from fluffle.broker.metadata.facts import Key, Kind

RESERVED_PREFIX = "amq."
"""Exchanges of the broker itself come and go with their virtual host, and are no facts."""


def _vhost(key: Key) -> tuple[Name, ...]:
    return ((Kind.VHOST, key[:1]),)


def _user_and_vhost(key: Key) -> tuple[Name, ...]:
    return (Kind.USER, key[:1]), (Kind.VHOST, key[1:2])


def _ends(key: Key) -> tuple[Name, ...]:
    vhost, source, kind, destination, *_ = key
    return end(Kind.EXCHANGE, vhost, source), end(Kind(str(kind)), vhost, destination)


def end(kind: Kind, vhost: str | bytes, name: str | bytes) -> Name:
    """One end of a binding, or the virtual host in its place."""
    is_own = kind is Kind.EXCHANGE and str(name).startswith(RESERVED_PREFIX)
    return (Kind.VHOST, (vhost,)) if is_own else (kind, (vhost, name))


STANDS_IN: Mapping[Kind, Callable[[Key], tuple[Name, ...]]] = {
    Kind.PERMISSION: _user_and_vhost,
    Kind.TOPIC_PERMISSION: _user_and_vhost,
    Kind.DOOMED: _vhost,
    Kind.EXCHANGE: _vhost,
    Kind.QUEUE: _vhost,
    Kind.BINDING: _ends,
}
"""The other kinds stand alone."""


def is_closed(name: Name, known: Container[Name]) -> bool:
    """Whether it may only end, and nothing be put into it: a virtual host that is being deleted."""
    kind, key = name
    return kind is Kind.VHOST and (Kind.DOOMED, key) in known


def stands_in(name: Name) -> tuple[Name, ...]:
    """The names of what must be there."""
    kind, key = name
    ends = STANDS_IN.get(kind)
    return ends(key) if ends is not None else ()
