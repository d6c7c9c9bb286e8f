"""Catalogue of a node: the parts that definitions fill and are exported from.

A fact comes to the part that it is about in one place, `Catalogue.apply`.

Where policies have changed, queues and exchanges that are there go by what is so now.  Some at a
time, for there may be many, and no client is to wait for that.  Each is looked at with the policies
of that moment; if those change meanwhile, all are looked at once more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, TypeAlias

from fluffle.broker.access.access import Access
from fluffle.broker.base.client_session import WillName, page_of
from fluffle.broker.base.message import NEVER_EXPIRES_MS
from fluffle.broker.durability.fact_codec import DefinitionImage, VhostImage
from fluffle.broker.metadata.change import (
    Change,
    Entry,
    Fact,
    Key,
    Kind,
    Name,
    RemovedFacts,
    in_groups,
)
from fluffle.broker.metadata.metadata import Consequence
from fluffle.broker.metadata.nodes import NodeRegistry
from fluffle.broker.policies.policies import OPERATOR_POLICY, Policies, read_policy
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Consumer
from fluffle.broker.routing.topology import REMOVED_AT_ONCE
from fluffle.broker.runtime.background import Task, in_pieces
from fluffle.broker.vhosts.retained import RetainedTopics
from fluffle.broker.vhosts.vhost import VirtualHost

PIECE = 50
"""Queues or exchanges that are looked at in one turn: a millisecond or two, with ten policies."""

SEARCHES = 500
"""Matches of a name against a pattern in one turn: with more than ten policies there are fewer
names."""

Begin = Callable[[Task, Callable[[Exception], None]], object]
"""Runs a task, from the next turn on; the second argument is called with what it raises."""


def piece_for(policies: int) -> int:
    """Return how many queues or exchanges are looked at in one turn."""
    return max(1, min(PIECE, SEARCHES // max(1, policies)))


def renewals(vhost: VirtualHost, piece: int = PIECE) -> Iterator[None]:
    """Look at all of a virtual host, `piece` of them with each step."""
    for queues in in_pieces(tuple(vhost.queues.values()), piece):
        for queue in queues:
            if vhost.has(queue):
                vhost.maker.renew_settings(queue, vhost.name)
        yield None
    for names in in_pieces([exchange.spec.name for exchange in vhost.topology], piece):
        vhost.topology.renew_alternates(names)
        yield None


def renew_at_once(vhost: VirtualHost) -> None:
    """Renew a whole virtual host at once, where no client waits."""
    for _ in renewals(vhost):
        pass


class Renewal(Protocol):
    """Renewal of the policies of a virtual host's objects."""

    def renew_policies(self, vhost: VirtualHost) -> None: ...


class ImmediateRenewal:
    """Renewal of policies in one step, where no client waits."""

    def renew_policies(self, vhost: VirtualHost) -> None:
        renew_at_once(vhost)


class PolicyRenewal:
    """Renewal of policies, in all virtual hosts of a node."""

    def __init__(self, begin: Begin, count: Callable[[str], int]) -> None:
        """`count`: how many policies there are in a virtual host."""
        self._begin = begin
        self._count = count
        self._due: dict[VirtualHost, None] = {}
        """Virtual hosts to be checked from the beginning."""
        self._is_begun = False
        self._is_open = False

    def renew_policies(self, vhost: VirtualHost) -> None:
        """Policies of it have changed."""
        self._due[vhost] = None
        if self._is_open and not self._is_begun:
            self._is_begun = True
            self._begin(self._go_on(), self._failed)

    def open(self) -> None:
        """Begin to serve: what is due is done at once, since no client has waited until now."""
        self._is_open = True
        due, self._due = self._due, {}
        for vhost in due:
            renew_at_once(vhost)

    def _go_on(self) -> Task:
        while self._due:
            vhost = next(iter(self._due))
            del self._due[vhost]
            for step in renewals(vhost, piece_for(self._count(vhost.name))):
                yield step
                if vhost in self._due:
                    break
        self._is_begun = False

    def _failed(self, _error: Exception) -> None:
        """Note a failure, which has been logged; the next change begins anew."""
        self._is_begun = False


class StoredParameters:
    """Parameters and policies that are kept as JSON, as they came, and exported again."""

    def __init__(self, image: DefinitionImage | None = None) -> None:
        image = image or DefinitionImage()
        self.entries = image.kept
        """Stored entries by kind and name; for reading."""
        self.first_start = image.first_start
        """Objects made at the first start; None before there was one."""

    @property
    def policies(self) -> list[Entry]:
        return list(self.entries[Kind.POLICY].values())

    @property
    def parameters(self) -> list[Entry]:
        return list(self.entries[Kind.PARAMETER].values())

    @property
    def global_parameters(self) -> list[Entry]:
        return list(self.entries[Kind.GLOBAL_PARAMETER].values())


class WaitingDeadLetters(Protocol):
    """Dead letters that must arrive and could not."""

    def hasten(self) -> None:
        """Messages may go where they did not before."""


class QueueConverter(Protocol):
    """Changes queues into another type."""

    def changing(self, vhost: VirtualHost, name: str) -> None:
        """A queue has another successor than before, or has become that."""


OnRetained: TypeAlias = Callable[[RetainedTopics], None]
OnTransientQueue: TypeAlias = Callable[[VirtualHost, QueueDefinition], None]

OnNodeLost: TypeAlias = Callable[[str, Callable[[], bool]], None]


class MakeVhost(Protocol):
    """Makes a virtual host: a new one, or one that was there."""

    def __call__(self, name: str, image: VhostImage | None = None) -> VirtualHost: ...


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The definable parts of a node."""

    access: Access
    vhosts: dict[str, VirtualHost]
    """Virtual hosts by name; for reading."""
    make_vhost: Callable[[str], VirtualHost]
    kept: StoredParameters = field(default_factory=StoredParameters)
    doomed: dict[str, VirtualHost] = field(default_factory=dict)
    """Virtual hosts of which something is left to be deleted."""
    nodes: NodeRegistry = field(default_factory=NodeRegistry)
    """Nodes of the cluster; none where a node is alone."""
    policies: Policies = field(default_factory=Policies)
    """Policies, parsed; makers of queues have them, too."""
    renewal: Renewal = field(default_factory=ImmediateRenewal)
    dead_letters: WaitingDeadLetters | None = None
    """None where none wait."""
    converter: QueueConverter | None = None
    """None where no queue is changed into another type."""
    transient_listeners: list[OnTransientQueue] = field(default_factory=list)
    """Called with each new queue that ends with its connection, or with the process that it is on:
    either may have ended before the queue came true."""
    session_listeners: list[Callable[[str, str], None]] = field(default_factory=list)
    """Called with virtual host and client when a session that lasts is kept or has ended,
    whichever node has said so."""
    will_listeners: list[Callable[[str, WillName], None]] = field(default_factory=list)
    """Called with virtual host and name when a will is due, or is to be published by another node
    than before."""
    node_loss_listeners: list[OnNodeLost] = field(default_factory=list)
    """Called, on the node that leads the definitions, with one that is dead or is none of the
    cluster any more, and with a function that says whether that is still so."""
    retained_listeners: list[OnRetained] = field(default_factory=list)
    """Called with the topics of a virtual host when one of them has a message that expires."""

    default_queue_type: str | None = None
    """Default queue type of virtual hosts that name none when they are made."""

    def holder(self, vhost: str) -> VirtualHost:
        """Return the holder of a fact about a virtual host, be it one that is being deleted."""
        return self.vhosts.get(vhost) or self.doomed[vhost]

    def known(self, name: Name) -> object:
        """The value of a fact about a user, a virtual host or a queue; None if there is none."""
        kind, key = name
        if kind is Kind.USER:
            return self.access.users.get(str(key[0]))
        vhost = self.vhosts.get(str(key[0]))
        if kind is Kind.VHOST:
            return vhost.settings if vhost is not None else None
        if kind is Kind.QUEUE and vhost is not None:
            queue = vhost.queues.get(str(key[1]))
            return queue.definition if queue is not None else None
        return None

    def apply(self, change: Change) -> Iterable[Consequence]:
        """Apply a change, wherever it was decided; return the notifications that are due then."""
        consequences: list[Consequence] = []
        for kind, key, value, _ in self._removed(in_groups(change.removes)):
            consequences += APPLIED[kind].remove(self, key, value)
        for kind, key, value, _ in change.puts:
            consequences += APPLIED[kind].put(self, key, value)
        if self.dead_letters is not None and not change.changes_nothing:
            self.dead_letters.hasten()
        return dict.fromkeys(consequences) if consequences else ()

    def _removed(self, removes: RemovedFacts) -> Iterator[Fact]:
        """Yield what is to be removed one by one, in order; bindings go together where there are
        many."""
        # exchanges first: in one that has gone no binding has to be looked for
        exchange = Kind.EXCHANGE
        yield from [fact for fact in removes.others if fact.kind is exchange]
        for group in removes.groups:
            assert group.kind is Kind.BINDING, group.kind
            self.holder(group.vhost).topology.remove_bindings(group.values)
        others = [fact for fact in removes.others if fact.kind is not exchange]
        if len(others) <= REMOVED_AT_ONCE:
            yield from others
            return
        for kind, facts in groupby(others, key=attrgetter("kind")):
            if kind is not Kind.BINDING:
                yield from facts
                continue
            by_vhost: defaultdict[str, list[Any]] = defaultdict(list)
            for _, key, binding, _ in facts:
                by_vhost[str(key[0])].append(binding)
            for vhost, bindings in by_vhost.items():
                self.holder(vhost).topology.remove_bindings(bindings)


def restored(
    image: DefinitionImage,
    access: Access,
    make_vhost: MakeVhost,
    policies: Policies | None = None,
    renewal: Renewal | None = None,
) -> Catalogue:
    """Build the catalogue of what is stored, `access` made of its tables, and `policies` read of
    it.  StorageError."""
    vhosts = {name: make_vhost(name, vhost) for name, vhost in image.vhosts.items()}
    doomed = {name: vhosts.pop(name) for name in image.doomed}
    return Catalogue(
        access,
        vhosts,
        make_vhost,
        StoredParameters(image),
        doomed,
        policies=policies if policies is not None else policies_of(image),
        renewal=renewal or ImmediateRenewal(),
    )


def policies_of(image: DefinitionImage) -> Policies:
    """Return the stored policies, parsed."""
    policies = Policies()
    for kind in (Kind.POLICY, Kind.PARAMETER):
        for key, entry in image.kept[kind].items():
            take_policy(policies, kind, key, entry)
    return policies


def take_policy(policies: Policies, kind: Kind, key: Key, entry: Entry) -> bool:
    """True if it is one, of users or of operators."""
    vhost, name = str(key[0]), str(key[-1])
    if kind is Kind.POLICY:
        policies.of(vhost).put(read_policy(name, entry))
    elif key[1] == OPERATOR_POLICY:
        policies.of(vhost).put_operators(read_policy(name, entry.get("value")))
    else:
        return False
    return True


def drop_policy(policies: Policies, kind: Kind, key: Key) -> bool:
    """True if it was one."""
    vhost, name = str(key[0]), str(key[-1])
    if kind is Kind.POLICY:
        policies.of(vhost).remove(name)
    elif key[1] == OPERATOR_POLICY:
        policies.of(vhost).remove_operators(name)
    else:
        return False
    return True


def queues_here(catalogue: Catalogue) -> Iterator[Queue]:
    """Return the queues of all virtual hosts that are in this process."""
    for vhost in catalogue.vhosts.values():
        for queue in vhost.queues.values():
            if isinstance(queue, Queue):
                yield queue


@dataclass(frozen=True, slots=True)
class RenewPolicies:
    """Renewal of a virtual host's policies; once, however often it is asked for."""

    renewal: Renewal
    vhost: VirtualHost

    def __call__(self) -> None:
        self.renewal.renew_policies(self.vhost)


@dataclass(frozen=True, slots=True)
class NotifyUserChange:
    """Notification of listeners that something has changed for a user; once, however often it is
    asked for."""

    access: Access
    user: str

    def __call__(self) -> None:
        self.access.notify(self.user)


Act: TypeAlias = Callable[[Catalogue, Any, Any], Iterable[Consequence]]
"""(catalogue, the parts of the name, the value) -> its consequences."""


class FactActions(NamedTuple):
    """Actions for the facts of one kind: put and remove."""

    put: Act
    remove: Act


def put_user(catalogue: Catalogue, key: tuple[str], user: Any) -> Iterable[Consequence]:
    catalogue.access.put_user(user)
    return (NotifyUserChange(catalogue.access, *key),)


def remove_user(catalogue: Catalogue, key: tuple[str], _user: Any) -> Iterable[Consequence]:
    catalogue.access.remove_user(*key)
    return (NotifyUserChange(catalogue.access, *key),)


def put_vhost(catalogue: Catalogue, key: tuple[str], settings: Any) -> Iterable[Consequence]:
    (name,) = key
    vhost = catalogue.vhosts.get(name)
    if vhost is None:
        vhost = catalogue.vhosts[name] = catalogue.make_vhost(name)
    vhost.settings = settings
    return ()


def remove_vhost(catalogue: Catalogue, key: tuple[str], _settings: Any) -> Iterable[Consequence]:
    """Remove an empty virtual host; connections that are still in it are closed."""
    (name,) = key
    if catalogue.doomed.pop(name, None) is not None:
        return ()
    del catalogue.vhosts[name]
    return notify_all_users(catalogue)


def put_doomed(catalogue: Catalogue, key: tuple[str], _value: Any) -> Iterable[Consequence]:
    """Mark a virtual host as being deleted: it cannot be opened any more, and its connections are
    closed."""
    (name,) = key
    catalogue.doomed[name] = catalogue.vhosts.pop(name)
    return notify_all_users(catalogue)


def notify_all_users(catalogue: Catalogue) -> Iterable[Consequence]:
    return [NotifyUserChange(catalogue.access, user) for user in catalogue.access.listened_to]


def put_permission(catalogue: Catalogue, key: Any, permission: Any) -> Iterable[Consequence]:
    catalogue.access.permissions[key] = permission
    return (NotifyUserChange(catalogue.access, key[0]),)


def remove_permission(catalogue: Catalogue, key: Any, _permission: Any) -> Iterable[Consequence]:
    del catalogue.access.permissions[key]
    return (NotifyUserChange(catalogue.access, key[0]),)


def put_topic_permission(catalogue: Catalogue, key: Any, permission: Any) -> Iterable[Consequence]:
    catalogue.access.topic_permissions[key] = permission
    return (NotifyUserChange(catalogue.access, key[0]),)


def remove_topic_permission(
    catalogue: Catalogue, key: Any, _permission: Any
) -> Iterable[Consequence]:
    del catalogue.access.topic_permissions[key]
    return (NotifyUserChange(catalogue.access, key[0]),)


def put_exchange(catalogue: Catalogue, key: tuple[str, str], spec: Any) -> Iterable[Consequence]:
    catalogue.holder(key[0]).topology.put_exchange(spec)
    return ()


def remove_exchange(catalogue: Catalogue, key: Any, _spec: Any) -> Iterable[Consequence]:
    vhost, name = key
    catalogue.holder(vhost).topology.remove_exchange(name)
    return ()


def put_queue(catalogue: Catalogue, key: Any, definition: Any) -> Iterable[Consequence]:
    """Put a queue; consumers of one that it replaces are notified that it is gone."""
    vhost = catalogue.holder(key[0])
    there = vhost.queues.get(key[1])
    consumers = vhost.put_queue(definition)
    notifications = notify_consumers_of_end(consumers)
    if there is None and (definition.owner is not None or definition.boot):
        notifications += [
            partial(listener, vhost, definition) for listener in catalogue.transient_listeners
        ]
    if definition.successor is None and (there is None or there.definition is definition):
        return notifications
    if catalogue.converter is None:
        return notifications
    return [*notifications, partial(catalogue.converter.changing, vhost, key[1])]


def remove_queue(catalogue: Catalogue, key: Any, _definition: Any) -> Iterable[Consequence]:
    """Clients that want to know hear that their consumers are gone."""
    vhost, name = key
    return notify_consumers_of_end(catalogue.holder(vhost).remove_queue(name))


def notify_consumers_of_end(consumers: Iterable[Consumer]) -> list[Consequence]:
    """Return the notifications of consumers that their queue has ended, by channel and tag as in
    RabbitMQ."""
    by_tag = sorted(consumers, key=attrgetter("tag"))
    return [partial(consumer.sink.cancelled, consumer) for consumer in by_tag]


def put_binding(catalogue: Catalogue, key: Any, binding: Any) -> Iterable[Consequence]:
    catalogue.holder(key[0]).topology.put_binding(binding)
    return ()


def remove_binding(catalogue: Catalogue, key: Any, binding: Any) -> Iterable[Consequence]:
    catalogue.holder(key[0]).topology.remove_binding(binding)
    return ()


def put_retained(catalogue: Catalogue, key: tuple[str, str], kept: Any) -> Iterable[Consequence]:
    vhost, topic = key
    topics = catalogue.holder(vhost).retained
    topics.put(topic, kept)
    if kept.expires_at_ms == NEVER_EXPIRES_MS:
        return ()
    return [partial(listener, topics) for listener in catalogue.retained_listeners]


def put_client_session(
    catalogue: Catalogue, key: tuple[str, str], session: Any
) -> Iterable[Consequence]:
    vhost, client_id = key
    catalogue.holder(vhost).client_sessions.by_client[client_id] = session
    return [partial(listener, vhost, client_id) for listener in catalogue.session_listeners]


def remove_client_session(catalogue: Catalogue, key: Any, _session: Any) -> Iterable[Consequence]:
    vhost, client_id = key
    del catalogue.holder(vhost).client_sessions.by_client[client_id]
    return [partial(listener, vhost, client_id) for listener in catalogue.session_listeners]


def put_client_packets(catalogue: Catalogue, key: Any, page: Any) -> Iterable[Consequence]:
    catalogue.holder(key[0]).client_sessions.put_page(key[1], page_of(key), page)
    return ()


def remove_client_packets(catalogue: Catalogue, key: Any, _value: Any) -> Iterable[Consequence]:
    catalogue.holder(key[0]).client_sessions.remove_page(key[1], page_of(key))
    return ()


def put_client_will(
    catalogue: Catalogue, key: tuple[str, str, str], will: Any
) -> Iterable[Consequence]:
    vhost, client_id, name = key
    catalogue.holder(vhost).client_sessions.due_wills[client_id, name] = will
    return [partial(listener, vhost, (client_id, name)) for listener in catalogue.will_listeners]


def remove_client_will(catalogue: Catalogue, key: Any, _will: Any) -> Iterable[Consequence]:
    vhost, client_id, name = key
    del catalogue.holder(vhost).client_sessions.due_wills[client_id, name]
    return ()


def remove_retained(catalogue: Catalogue, key: Any, _kept: Any) -> Iterable[Consequence]:
    vhost, topic = key
    catalogue.holder(vhost).retained.remove(topic)
    return ()


def keeps(kind: Kind) -> FactActions:
    """Return the handler of a kind of facts that is only kept."""

    def put(catalogue: Catalogue, key: Key, entry: Any) -> Iterable[Consequence]:
        catalogue.kept.entries[kind][key] = entry
        return ()

    def remove(catalogue: Catalogue, key: Key, _entry: Any) -> Iterable[Consequence]:
        del catalogue.kept.entries[kind][key]
        return ()

    return FactActions(put, remove)


def keeps_policies(kind: Kind) -> FactActions:
    """Return the handler of a kind of facts that holds policies."""

    def put(catalogue: Catalogue, key: Key, entry: Any) -> Iterable[Consequence]:
        catalogue.kept.entries[kind][key] = entry
        return renewed(catalogue, key, is_one=take_policy(catalogue.policies, kind, key, entry))

    def remove(catalogue: Catalogue, key: Key, _entry: Any) -> Iterable[Consequence]:
        del catalogue.kept.entries[kind][key]
        return renewed(catalogue, key, is_one=drop_policy(catalogue.policies, kind, key))

    return FactActions(put, remove)


def renewed(catalogue: Catalogue, key: Key, *, is_one: bool) -> Iterable[Consequence]:
    vhost = catalogue.vhosts.get(str(key[0]))
    return (RenewPolicies(catalogue.renewal, vhost),) if is_one and vhost is not None else ()


def put_started(catalogue: Catalogue, _key: Key, made: Any) -> Iterable[Consequence]:
    catalogue.kept.first_start = made
    return ()


def put_node(catalogue: Catalogue, key: tuple[str], registered: Any) -> Iterable[Consequence]:
    return (catalogue.nodes.put(*key, registered),)


def remove_node(catalogue: Catalogue, key: tuple[str], _registered: Any) -> Iterable[Consequence]:
    return (catalogue.nodes.remove(*key),)


def leave(_catalogue: Catalogue, _key: Key, _value: Any) -> Iterable[Consequence]:
    """Do nothing: the fact is only recorded."""
    return ()


APPLIED: Mapping[Kind, FactActions] = {
    Kind.STARTED: FactActions(put_started, leave),
    Kind.NODE: FactActions(put_node, remove_node),
    Kind.USER: FactActions(put_user, remove_user),
    Kind.VHOST: FactActions(put_vhost, remove_vhost),
    Kind.DOOMED: FactActions(put_doomed, leave),
    Kind.PERMISSION: FactActions(put_permission, remove_permission),
    Kind.TOPIC_PERMISSION: FactActions(put_topic_permission, remove_topic_permission),
    Kind.EXCHANGE: FactActions(put_exchange, remove_exchange),
    Kind.QUEUE: FactActions(put_queue, remove_queue),
    Kind.BINDING: FactActions(put_binding, remove_binding),
    Kind.RETAINED: FactActions(put_retained, remove_retained),
    Kind.CLIENT_SESSION: FactActions(put_client_session, remove_client_session),
    Kind.CLIENT_PACKETS: FactActions(put_client_packets, remove_client_packets),
    Kind.CLIENT_WILL: FactActions(put_client_will, remove_client_will),
    Kind.POLICY: keeps_policies(Kind.POLICY),
    Kind.PARAMETER: keeps_policies(Kind.PARAMETER),
    Kind.GLOBAL_PARAMETER: keeps(Kind.GLOBAL_PARAMETER),
}
