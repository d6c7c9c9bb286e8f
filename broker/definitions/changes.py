"""Changes of virtual hosts and of stored parameters: decided here, applied elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from fluffle.broker.access.access import rights
from fluffle.broker.access.limits import VhostLimits, VhostSettings
from fluffle.broker.base.errors import DeleteProtected, PreconditionFailed
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.retained import forget_retained
from fluffle.broker.durability.fact_codec import KEPT
from fluffle.broker.metadata.change import NOTHING, Change, Entry, Fact, Kind, Name
from fluffle.broker.metadata.metadata import Decide
from fluffle.broker.queues.arguments import DEFAULT_QUEUE_TYPE
from fluffle.broker.routing.changes import drop_exchange
from fluffle.broker.vhosts.client_sessions import end_session, forget_will
from fluffle.broker.vhosts.queue_changes import delete_queues
from fluffle.broker.vhosts.vhost import VirtualHost


def vhost_name(name: str) -> Name:
    return Kind.VHOST, (name,)


def doom_name(vhost: str) -> Name:
    return Kind.DOOMED, (vhost,)


def set_vhost(
    catalogue: Catalogue,
    name: str,
    *,
    limits: VhostLimits | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Change:
    """Make a virtual host, or change what is given of one: what the metadata do not name stays, and
    new limits take nothing away.

    PreconditionFailed while one of that name is being deleted.
    """
    vhost = catalogue.vhosts.get(name)
    if name in catalogue.doomed:
        raise PreconditionFailed(f"vhost '{name}' is being deleted")
    settings = new_settings(catalogue) if vhost is None else vhost.settings
    if limits is not None:
        settings = replace(settings, limits=limits)
    if metadata is not None:
        settings = replace(settings, metadata={**settings.metadata, **metadata})
    if vhost is not None and settings == vhost.settings:
        return NOTHING
    kind, key = name_ = vhost_name(name)
    return Change(puts=(Fact(kind, key, settings),), rests_on=(name_,))


def new_settings(catalogue: Catalogue) -> VhostSettings:
    """Return the settings of a virtual host for which none are given."""
    queue_type = catalogue.default_queue_type
    return VhostSettings(metadata={DEFAULT_QUEUE_TYPE: queue_type} if queue_type else {})


def doom(catalogue: Catalogue, name: str) -> Change:
    """Mark a virtual host as being deleted: it cannot be opened, and its connections are closed.
    Protected.

    Once all of them are, what `dismantling` gives must follow; if the process ends before it has,
    the next start does it.
    """
    vhost = catalogue.vhosts.get(name)
    if vhost is None:
        return NOTHING
    if vhost.settings.is_protected:
        raise DeleteProtected(
            f"Refusing to delete virtual host '{name}' because it is protected from deletion"
        )
    kind, key = mark = doom_name(name)
    return Change(puts=(Fact(kind, key),), rests_on=(vhost_name(name), mark))


def dismantling(catalogue: Catalogue, name: str) -> Iterator[Decide]:
    """Removes all that is about a doomed virtual host, then what is in it, then itself.

    A queue or an exchange at a time; nothing once it is gone, even if one of its name has come.
    """
    vhost = catalogue.doomed.get(name)
    if vhost is None:
        return
    for decide in removals_of(catalogue, vhost):
        yield partial(while_doomed, catalogue, vhost, decide)


def removals_of(catalogue: Catalogue, vhost: VirtualHost) -> Iterator[Decide]:
    """Yield what is to be removed, each behind what stands in it."""
    yield partial(forget_about, catalogue, vhost.name)
    queues = deque(vhost.queues.values())
    while queues:
        queue = queues.popleft()  # let go of it: all at once takes long
        yield partial(delete_queues, vhost, (queue,))
    for name in [exchange.spec.name for exchange in vhost.topology]:
        yield partial(drop_exchange, vhost.topology, name)
    yield from forget_retained(catalogue, vhost)
    for client_id in tuple(vhost.client_sessions.by_client):
        yield partial(end_session, vhost, client_id)
    for will in tuple(vhost.client_sessions.due_wills):
        yield partial(forget_will, vhost, will)
    yield partial(forget_vhost, vhost)


def while_doomed(catalogue: Catalogue, vhost: VirtualHost, decide: Decide) -> Change:
    """Return the change of `decide`, which rests on the mark: another node may finish the deletion
    first."""
    if catalogue.doomed.get(vhost.name) is not vhost:
        return NOTHING
    change = decide()
    return change._replace(rests_on=(*change.rests_on, doom_name(vhost.name)))


def unfinished(catalogue: Catalogue) -> Iterator[Decide]:
    """Yield what is left to do of deletions that an earlier process has begun."""
    for name in tuple(catalogue.doomed):
        yield from dismantling(catalogue, name)


def forget_about(catalogue: Catalogue, vhost: str) -> Change:
    """Remove what is kept of a virtual host, and what users may do there."""
    may = rights(catalogue.access, lambda key: key[1] == vhost)
    return Change(removes=(*kept_in(catalogue, vhost), *may))


def forget_vhost(vhost: VirtualHost) -> Change:
    """Free the name of one that is empty."""
    key = (vhost.name,)
    return Change(removes=(Fact(Kind.VHOST, key, vhost.settings), Fact(Kind.DOOMED, key)))


def keep(kind: Kind, entry: Entry) -> Change:
    """Keep an entry in the place of an earlier one with the same names."""
    key = tuple(str(entry[name]) for name in KEPT[kind])
    is_inside = KEPT[kind][0] == "vhost"
    return Change(
        puts=(Fact(kind, key, entry),), rests_on=(doom_name(key[0]),) if is_inside else ()
    )


def kept_in(catalogue: Catalogue, vhost: str) -> Iterator[Fact]:
    """Yield the facts that are only kept, of a virtual host."""
    kinds = [kind for kind, names in KEPT.items() if names[0] == "vhost"]
    return (
        Fact(kind, key, entry)
        for kind in kinds
        for key, entry in catalogue.kept.entries[kind].items()
        if key[0] == vhost
    )
