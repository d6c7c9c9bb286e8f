"""Topic filters: bindings that are subscriptions to topics, and how those are matched exactly.

A protocol whose messages have topics (levels between slashes, OASIS MQTT 5.0, 4.7) binds with the
argument `x-topic-filter`.  A message that has a topic is matched against filters by that, and
against all other bindings by its routing key; one that has none, by its key against all of them.

    filters   a/b   a/+   a/#                root --a--> . --b--> (a/b)
                                                          |--+--> (a/+)
                                                          \\--#--> (a/#)

`+` stands for one level, also an empty one; `#`, at the end, for any number of levels, none
included.  Neither stands for a first level that begins with `$`.

A topic is walked along level by level, with all nodes that the levels so far can have led to.  A
node is at one depth and has one way to it, so each is looked at once at most, whatever filters
there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from typing import NamedTuple

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import (
    Binding,
    Bindings,
    DestinationKind,
    with_binding,
    without_binding,
)
from fluffle.broker.routing.matcher import STOP, MatchInput, in_parts
from fluffle.broker.routing.topic import NODES_AT_ONCE, BindingTrie, TopicMatcher, TrieNode
from fluffle.protocol.mqtt.topics import LEVELS_MAX
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import Field, FieldTable, is_shortstr

TOPIC_FILTER = "x-topic-filter"
"""Argument of a binding: the filter as it was subscribed to."""
SUBSCRIPTION_OPTIONS = "x-subscription-options"
"""The octet of options (OASIS MQTT 5.0, 3.8.3.1)."""
SUBSCRIPTION_ID = "x-subscription-id"
"""The subscription identifier, if it has one."""
BINDING_KEY = "x-binding-key"
"""The routing key, as RabbitMQ has it in the arguments of subscriptions of MQTT 5.0."""

GROUP_NAME = "x-group-name"
"""Name of the group of clients that share a queue, each by a binding of it."""
GROUP_MEMBER = "x-group-member"
"""Client whose subscription it is."""
GROUP_CONNECTION = "x-group-connection"
"""Connection with which such a subscription ends, if it does."""

GROUP_ARGUMENTS = (GROUP_NAME, GROUP_MEMBER, GROUP_CONNECTION)

HIDDEN = frozenset((TOPIC_FILTER, SUBSCRIPTION_OPTIONS, SUBSCRIPTION_ID, *GROUP_ARGUMENTS))
"""Arguments of subscriptions that RabbitMQ does not have, and that are not shown."""

ONE_LEVEL = "+"
ANY_LEVELS = "#"


ABSENT: Field = ("V", None)
"""Argument that is not there."""


class FilterBinding(NamedTuple):
    """A subscription as its binding has it in the arguments."""

    topic_filter: str
    options: int = 0
    identifier: int | None = None
    group: str = ""
    """Name of the group that shares it, if one does."""
    member: str = ""
    """Client whose it is, if it shares the queue with others."""
    connection: str = ""
    """Connection with which it ends; empty if it lasts."""


def arguments_of(subscription: FilterBinding, binding_key: str | None = None) -> FieldTable:
    """The arguments of the binding of a subscription; as an import of definitions has them."""
    arguments: FieldTable = {}
    if binding_key is not None:
        arguments[BINDING_KEY] = _text(binding_key)
    arguments[TOPIC_FILTER] = _text(subscription.topic_filter)
    arguments[SUBSCRIPTION_OPTIONS] = ("l", subscription.options)
    if subscription.identifier is not None:
        arguments[SUBSCRIPTION_ID] = ("l", subscription.identifier)
    for argument, value in zip(GROUP_ARGUMENTS, subscription[3:], strict=True):
        if value:
            arguments[argument] = _text(value)
    return arguments


def _text(value: str) -> Field:
    return "S", value.encode(errors="surrogateescape")


def filter_of(binding: Binding) -> str | None:
    """The topic filter of a binding, if it has one."""
    return _text_of(binding, TOPIC_FILTER)


def _text_of(binding: Binding, argument: str) -> str | None:
    tag, value = binding.arguments.get(argument, ABSENT)
    if tag != "S" or not isinstance(value, bytes):
        return None
    return value.decode(errors="surrogateescape")


def member_of(binding: Binding) -> str:
    """The client that shares a queue by this binding; empty if none does."""
    return _text_of(binding, GROUP_MEMBER) or ""


def connection_of(binding: Binding) -> str:
    """The connection with which a binding of a shared queue ends; empty if it lasts."""
    return _text_of(binding, GROUP_CONNECTION) or ""


def subscription_of(binding: Binding) -> FilterBinding | None:
    """The subscription that a binding is, if it is one."""
    topic_filter = filter_of(binding)
    if topic_filter is None:
        return None
    arguments = binding.arguments
    _tag, options = arguments.get(SUBSCRIPTION_OPTIONS, ABSENT)
    _tag, identifier = arguments.get(SUBSCRIPTION_ID, ABSENT)
    group = (_text_of(binding, name) or "" for name in GROUP_ARGUMENTS)
    return FilterBinding(
        topic_filter,
        options if isinstance(options, int) else 0,
        identifier if isinstance(identifier, int) else None,
        *(group if GROUP_NAME in arguments else ()),
    )


def shown_arguments(binding: Binding) -> FieldTable:
    """The arguments of a binding as RabbitMQ shows them."""
    if filter_of(binding) is None:
        return binding.arguments
    return {name: value for name, value in binding.arguments.items() if name not in HIDDEN}


def check_filter(topic_filter: str) -> None:
    """PreconditionFailed for what is no topic filter, or has too many levels."""
    levels = topic_filter.split("/")
    *inner, last = levels
    wild = ANY_LEVELS in "/".join(inner) or (ANY_LEVELS in last and last != ANY_LEVELS)
    if not topic_filter or wild or any(ONE_LEVEL in each and each != ONE_LEVEL for each in levels):
        raise PreconditionFailed(f"invalid topic filter '{topic_filter}'")
    if len(levels) > LEVELS_MAX:
        raise PreconditionFailed(
            f"a topic filter has {len(levels)} levels, at most {LEVELS_MAX} are allowed"
        )


class FilterTrie:
    """A trie of topic filters, one node a level; and which binding of a queue has which filter."""

    __slots__ = ("_by_member", "_by_queue", "_trie")

    def __init__(self) -> None:
        self._trie = BindingTrie()
        self._by_queue: dict[tuple[str, str], Bindings] = {}
        """Bindings by queue and filter: one a client, unless nodes have made several at once."""
        self._by_member: dict[str, Bindings] = {}
        """Bindings of shared queues by the client that shares it so."""

    def add(self, topic_filter: str, binding: Binding) -> bool:
        """Add a binding; whether it is new."""
        if not self._trie.add(topic_filter.split("/"), binding):
            return False
        if binding.destination_kind is DestinationKind.QUEUE:
            name = binding.destination, topic_filter
            self._by_queue[name] = with_binding(self._by_queue.get(name, ()), binding)
            if member := member_of(binding):
                self._by_member[member] = with_binding(self._by_member.get(member, ()), binding)
        return True

    def discard(self, topic_filter: str, binding: Binding) -> bool:
        """Remove a binding; whether it was there."""
        if not self._trie.discard(topic_filter.split("/"), binding):
            return False
        if binding.destination_kind is DestinationKind.QUEUE:
            name = binding.destination, topic_filter
            if rest := without_binding(self._by_queue[name], binding):
                self._by_queue[name] = rest
            else:
                del self._by_queue[name]
            if member := member_of(binding):
                if rest := without_binding(self._by_member[member], binding):
                    self._by_member[member] = rest
                else:
                    del self._by_member[member]
        return True

    def of_queue(self, queue: str, topic_filter: str) -> Bindings:
        """The bindings of a queue that have this filter."""
        return self._by_queue.get((queue, topic_filter), ())

    def of_member(self, member: str) -> Bindings:
        """The bindings of shared queues that are this client's."""
        return self._by_member.get(member, ())

    @property
    def members(self) -> tuple[str, ...]:
        """The clients that share queues."""
        return tuple(self._by_member)

    def search(self, topic: str) -> Iterator[Iterable[Binding]]:
        """The bindings whose filter matches, by some at a time, with a `STOP` wherever much had to
        be looked at."""
        return self._trie.walked(self._walk(topic))

    def _walk(self, topic: str) -> Iterator[Iterable[Binding]]:
        visits = count(1)
        reached = [self._trie.root]
        are_wild = not topic.startswith("$")
        for level in topic.split("/", LEVELS_MAX):  # what is below is for `#` alone
            before, reached = reached, []
            for node in before:
                if found := _follow(node, level, reached, are_wild=are_wild):
                    yield from in_parts(found)
                if not next(visits) % NODES_AT_ONCE:
                    yield STOP
            if not reached:
                return
            are_wild = True
        for node in reached:
            if node.bindings:
                yield from in_parts(node.bindings)
            if (child := node.child(ANY_LEVELS)) is not None:
                yield from in_parts(child.bindings)
            if not next(visits) % NODES_AT_ONCE:
                yield STOP

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._trie)

    def __len__(self) -> int:
        return len(self._trie)


def _follow(node: TrieNode, level: str, reached: list[TrieNode], *, are_wild: bool) -> Bindings:
    """Add the nodes that a level leads to, and return the bindings for whatever levels there are
    from this one on."""
    children = node.children
    if isinstance(children, dict):
        if (child := children.get(level)) is not None:
            reached.append(child)
        if not are_wild:
            return ()
        if (child := children.get(ONE_LEVEL)) is not None:
            reached.append(child)
        child = children.get(ANY_LEVELS)
        return child.bindings if child is not None else ()
    if children is None:
        return ()
    if children.word == level or (are_wild and children.word == ONE_LEVEL):
        reached.append(children)
    elif are_wild and children.word == ANY_LEVELS:
        return children.bindings
    return ()


class TopicFilterMatcher:
    """The bindings of a topic exchange: those with a filter are in tries of their own."""

    asks = MatchInput.KEYS
    clears_in_steps = True

    __slots__ = ("_filters", "_keys_of_filters", "_plain")

    def __init__(self) -> None:
        self._plain = TopicMatcher()
        self._filters = FilterTrie()
        """All that have a filter."""
        self._keys_of_filters = TopicMatcher()
        """The same by their routing keys, but those whose key is longer than any of AMQP."""

    def check(self, binding: Binding) -> None:
        self._plain.check(binding)
        topic_filter = filter_of(binding)
        if topic_filter is not None:
            check_filter(topic_filter)

    def add(self, binding: Binding) -> bool:
        topic_filter = filter_of(binding)
        if topic_filter is None:
            return self._plain.add(binding)
        is_new = self._filters.add(topic_filter, binding)
        if is_new and is_shortstr(binding.routing_key):
            self._keys_of_filters.add(binding)
        return is_new

    def discard(self, binding: Binding) -> bool:
        topic_filter = filter_of(binding)
        if topic_filter is None:
            return self._plain.discard(binding)
        self._keys_of_filters.discard(binding)
        return self._filters.discard(topic_filter, binding)

    def of_queue(self, queue: str, topic_filter: str) -> Bindings:
        """The bindings of a queue that have this filter."""
        return self._filters.of_queue(queue, topic_filter)

    def of_member(self, member: str) -> Bindings:
        """The bindings of shared queues that are this client's."""
        return self._filters.of_member(member)

    @property
    def members(self) -> tuple[str, ...]:
        """The clients that share queues."""
        return self._filters.members

    def search(
        self,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Iterator[Iterable[Binding]]:
        plain = self._plain.search(routing_keys, properties)
        if not len(self._filters):
            return plain
        if topic is None:
            return chain(plain, self._keys_of_filters.search(routing_keys, properties))
        return chain(plain, self._filters.search(topic))

    def __iter__(self) -> Iterator[Binding]:
        return chain(self._plain, self._filters)

    def __len__(self) -> int:
        return len(self._plain) + len(self._filters)
