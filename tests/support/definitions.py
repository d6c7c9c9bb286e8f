"""Changes of definitions for tests that are about what comes of them: decided and done at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fluffle.broker.access import access as users
from fluffle.broker.access.access import ADMINISTRATOR, Access, Permission, TopicPermission, User
from fluffle.broker.access.passwords import hashed
from fluffle.broker.definitions import changes as vhosts
from fluffle.broker.definitions import parameters
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.metadata.change import Change, Entry, FactGroup, Facts, Key, Kind
from fluffle.broker.metadata.metadata import LocalMetadata, Metadata
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Owner
from fluffle.broker.queues.queue_api import Consumer, QueueHandle
from fluffle.broker.routing import changes as topologies
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhosts import queue_changes as queues
from fluffle.broker.vhosts.vhost import VirtualHost

EVERYTHING = Permission(".*", ".*", ".*")
"""Every right to every name."""


class NoFacts:
    """Remembers nothing: for what ends with the process."""

    def put(self, kind: Kind, key: Key, value: object) -> None:
        """Do nothing: no fact is read again."""

    def remove(self, kind: Kind, key: Key) -> None:
        """Do nothing: no fact is read again."""

    def remove_group(self, group: FactGroup) -> None:
        """Do nothing: no fact is read again."""

    def together(self) -> AbstractContextManager[None]:
        """Do nothing: no fact is read again."""
        return nullcontext()


def engine_of(vhost: VirtualHost, name: str) -> Queue:
    """A queue that lives in this process."""
    queue = vhost.queues[name]
    assert isinstance(queue, Queue)
    return queue


def engines(vhost: VirtualHost) -> list[Queue]:
    """All of them."""
    return [engine_of(vhost, name) for name in vhost.queues]


class Editor:
    """Changes a catalogue, and remembers it in `facts`."""

    def __init__(self, catalogue: Catalogue, facts: Facts | None = None) -> None:
        self.catalogue = catalogue
        self.metadata: Metadata = LocalMetadata(catalogue.apply, facts or NoFacts())

    def have(self, decide: Callable[[], Change]) -> None:
        self.metadata.ensure(decide)

    def vhost(self, name: str, **settings: Any) -> VirtualHost:
        """Made if there is none."""
        self.have(lambda: vhosts.set_vhost(self.catalogue, name, **settings))
        return self.catalogue.vhosts[name]

    def delete_vhost(self, name: str) -> None:
        """With all that is in it, in one go, if it is there."""
        self.have(lambda: vhosts.doom(self.catalogue, name))
        for decide in vhosts.dismantling(self.catalogue, name):
            self.have(decide)

    def inside(self, vhost: str) -> VhostEditor:
        """Editor of the definitions in a virtual host, which is made if there is none."""
        return VhostEditor(self.vhost(vhost), self)

    def keep(self, kind: Kind, entry: Entry) -> None:
        self.have(lambda: vhosts.keep(kind, entry))

    def clear(self, kind: Kind, key: Key) -> None:
        self.have(lambda: parameters.clear(self.catalogue, kind, key))

    # Users

    def put_user(self, user: User) -> None:
        self.have(lambda: users.put_user(user))

    def delete_user(self, name: str) -> None:
        self.have(lambda: users.delete_user(self.catalogue.access, name))

    def put_permission(self, user: str, vhost: str, permission: Permission) -> None:
        self.have(lambda: users.put_permission(user, vhost, permission))

    def clear_permission(self, user: str, vhost: str) -> None:
        self.have(lambda: users.clear_permission(self.catalogue.access, user, vhost))

    def put_topic_permission(
        self, user: str, vhost: str, exchange: str, permission: TopicPermission
    ) -> None:
        self.have(lambda: users.put_topic_permission(user, vhost, exchange, permission))

    def clear_topic_permission(self, user: str, vhost: str, exchange: str) -> None:
        access = self.catalogue.access
        self.have(lambda: users.clear_topic_permissions(access, user, vhost, exchange))

    def grant_everything(self, name: str, password: bytes, vhosts: Iterable[str]) -> None:
        """Make an administrator with full rights."""
        self.put_user(User(name, hashed(password), (ADMINISTRATOR,)))
        for vhost in vhosts:
            self.put_permission(name, vhost, EVERYTHING)


def no_other(name: str) -> VirtualHost:
    raise AssertionError(f"no {name} was wanted")


def editor_of(
    *vhosts: VirtualHost, access: Access | None = None, facts: Facts | None = None
) -> Editor:
    """Editor of a node with these parts and nothing else."""
    named = {vhost.name: vhost for vhost in vhosts}
    return Editor(Catalogue(access or Access(), named, no_other), facts)


class VhostEditor:
    """Changes what is in one virtual host."""

    def __init__(self, vhost: VirtualHost, editor: Editor | None = None) -> None:
        self.vhost = vhost
        self._have = (editor or editor_of(vhost)).have

    def declare_exchange(self, spec: ExchangeSpec) -> None:
        self._have(lambda: topologies.declare_exchange(self.vhost.topology, spec))

    def delete_exchange(self, name: str) -> None:
        self._have(lambda: topologies.delete_exchange(self.vhost.topology, name))

    def declare_queue(self, declared: Declaration, owner: Owner | None = None) -> Queue:
        self._have(lambda: queues.declare_queue(self.vhost, declared, owner))
        return engine_of(self.vhost, declared.name)

    def delete_queue(self, queue: QueueHandle) -> None:
        self._have(lambda: queues.delete_queue(self.vhost, queue))

    def drop_owned(self, owner: Owner) -> None:
        self._have(lambda: queues.delete_owned(self.vhost, owner))

    def detach(self, consumer: Consumer) -> None:
        """A client cancels."""
        self.vhost.detach(consumer)
        self._have(lambda: queues.delete_unused(self.vhost, consumer.queue))

    def bind(self, binding: Binding, owner: Owner | None = None) -> None:
        self._have(lambda: queues.bind(self.vhost, binding, owner))

    def unbind(self, binding: Binding, owner: Owner | None = None) -> None:
        self._have(lambda: queues.unbind(self.vhost, binding, owner))

    def subscribe(self, *bindings: Binding, owner: Owner | None = None) -> None:
        self._have(lambda: queues.subscribe(self.vhost, bindings, owner))

    def unsubscribe(
        self, source: str, queue: str, *topic_filters: str, owner: Owner | None = None
    ) -> None:
        self._have(lambda: queues.unsubscribe(self.vhost, source, queue, topic_filters, owner))
