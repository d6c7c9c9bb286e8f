"""Retained messages of one virtual host: the last message of each topic, for later subscribers.

Topics have levels between slashes, and so has the tree: a filter of levels, where `+` is any one
and `#` at the end any number of them, is matched by walking it.  Neither stands for a first level
that begins with `$`.

    home/attic/temp      root -- home -- attic -- temp: message
    home/cellar/temp                  \\- cellar - temp: message

A cursor is a place in the matches of a filter, from which it goes on in a later turn.  It holds no
copy: children of a node are in a list that only grows and has holes, and where it has too many
another list takes its place, while cursors go on in theirs.  So what is there from the beginning of
a cursor to its end is found once, what is removed meanwhile is not found, and what comes meanwhile
may be.

Pure: `definitions/retained` decides and has it committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Protocol

from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage

ANY_LEVEL, ANY_LEVELS = "+", "#"
RESERVED = "$"

LEVEL_BYTES = 256
"""Bytes that a level of a topic counts: a node of the tree and its place in a dictionary."""

VISITS_MAX = 4096
"""Nodes that a cursor looks at in one step, some milliseconds: a filter may match few of them."""

HOLES_MIN = 16
"""A list of children is made anew once it has so many holes, and more holes than children."""

STALE_MIN = 64
"""Times that count no more are swept out once there are so many, and they are most."""


NO_ORDER: list[TopicNode | None] = []
"""Order of a node without children, most of all: an object less for the garbage collector."""


class TopicNode:
    """Level of a topic, with the levels below it."""

    __slots__ = ("children", "message", "order", "place", "word")

    def __init__(self, word: str, place: int) -> None:
        self.word = word
        self.place = place
        """Where it stands in the `order` of the node above."""
        self.message: RetainedMessage | None = None
        self.children: dict[str, TopicNode] | None = None
        self.order: list[TopicNode | None] = NO_ORDER
        """`children` as they came, and a hole for each that is gone.  It only grows."""

    @property
    def is_empty(self) -> bool:
        return self.message is None and not self.children

    def child(self, word: str) -> TopicNode | None:
        return self.children.get(word) if self.children else None

    def added(self, word: str) -> TopicNode:
        """Return the child of that word, a new one if there is none."""
        if self.children is None:
            self.children, self.order = {}, []
        child = self.children.get(word)
        if child is None:
            child = self.children[word] = TopicNode(word, len(self.order))
            self.order.append(child)
        return child

    def drop(self, child: TopicNode) -> None:
        """Remove a child."""
        assert self.children is not None
        del self.children[child.word]
        self.order[child.place] = None
        holes = len(self.order) - len(self.children)
        if holes >= HOLES_MIN and holes > len(self.children):
            self.order = [*self.children.values()]
            for place, each in enumerate(self.order):
                each.place = place  # type: ignore[union-attr]


class PendingTopics(Protocol):
    """Messages that are about to be retained in one virtual host."""

    def flush(self) -> Mapping[str, RetainedMessage]:
        """Have them retained at once, if that can be; return those of which it cannot."""


class NoPendingTopics:
    """Nothing that is about to be retained."""

    def flush(self) -> Mapping[str, RetainedMessage]:
        return {}


NO_PENDING_TOPICS = NoPendingTopics()


class RetainedTopics:
    """Retained messages by topic."""

    __slots__ = ("_expiries", "_expiring", "_root", "count", "pending", "size_bytes")

    def __init__(self, messages: Mapping[str, RetainedMessage] | None = None) -> None:
        self._root = TopicNode("", 0)
        self.count = 0
        self.size_bytes = 0
        """Bytes of all messages with their topics, and of the levels of these (`LEVEL_BYTES`)."""
        self._expiries: list[tuple[int, str]] = []
        """A heap: when, and what.  Replaced messages have theirs until that is swept."""
        self._expiring = 0
        """How many of the messages expire."""
        self.pending: PendingTopics = NO_PENDING_TOPICS
        """Published messages that are not stored here yet."""
        for topic, message in (messages or {}).items():
            self.put(topic, message)

    def find(self, topic: str) -> RetainedMessage | None:
        node: TopicNode | None = self._root
        for word in topic.split("/"):
            if node is None:
                return None
            node = node.child(word)
        return node.message if node is not None else None

    def put(self, topic: str, message: RetainedMessage) -> None:
        """Keep a message, in the place of the one that its topic has."""
        node = self._root
        for word in topic.split("/"):
            node = node.added(word)
        self._count(topic, node.message, message)
        node.message = message
        if message.expires_at_ms != NEVER_EXPIRES_MS:
            heappush(self._expiries, (message.expires_at_ms, topic))
            self._sweep()

    def remove(self, topic: str) -> None:
        """Remove the message of a topic, if it has one."""
        path = [self._root]
        for word in topic.split("/"):
            child = path[-1].child(word)
            if child is None:
                return
            path.append(child)
        node = path.pop()
        self._count(topic, node.message, None)
        node.message = None
        while path and node.is_empty:
            above = path.pop()
            above.drop(node)
            node = above

    def cursor(self, topic_filter: str) -> RetainedCursor:
        """Return a cursor at the first match of a filter.

        It also finds what this node is about to retain: a subscriber of now is too late to get
        that as it is published.
        """
        later = self.pending.flush()  # mutant: RT4
        cursor = RetainedCursor(self._root, topic_filter)
        if later:
            cursor.then(RetainedTopics(later).cursor(topic_filter))
        return cursor

    def __iter__(self) -> Iterator[tuple[str, RetainedMessage]]:
        """Yield all there are, also below topics that begin with `$`.  They may change meanwhile,
        as with a cursor."""
        stack: list[tuple[str, TopicNode]] = [("", self._root)]
        while stack:
            above, node = stack.pop()
            for child in filter(None, node.order):
                topic = child.word if node is self._root else f"{above}/{child.word}"
                if child.message is not None:
                    yield topic, child.message
                if child.children:
                    stack.append((topic, child))

    @property
    def next_expiry_ms(self) -> int | None:
        """When to look at `due` again, if ever."""
        return self._expiries[0][0] if self._expiries else None

    def due(self, now_ms: int, count_max: int) -> list[str]:
        """Take some topics whose messages have expired: the caller has them removed."""
        topics: list[str] = []
        while self._expiries and self._expiries[0][0] <= now_ms and len(topics) < count_max:
            expires_at_ms, topic = heappop(self._expiries)
            message = self.find(topic)
            if message is not None and message.expires_at_ms == expires_at_ms:
                topics.append(topic)
        return topics

    def _count(
        self, topic: str, before: RetainedMessage | None, after: RetainedMessage | None
    ) -> None:
        if before is not None:
            self.count -= 1
            self.size_bytes -= size_of(topic, before)
            self._expiring -= before.expires_at_ms != NEVER_EXPIRES_MS
        if after is not None:
            self.count += 1
            self.size_bytes += size_of(topic, after)
            self._expiring += after.expires_at_ms != NEVER_EXPIRES_MS

    def _sweep(self) -> None:
        if len(self._expiries) > STALE_MIN + 2 * self._expiring:
            self._expiries = [
                (message.expires_at_ms, topic)
                for topic, message in self
                if message.expires_at_ms != NEVER_EXPIRES_MS
            ]
            heapify(self._expiries)


def size_of(topic: str, message: RetainedMessage) -> int:
    """Return how much a message counts under its topic."""
    levels = 1 + topic.count("/")
    topic_bytes = len(topic) if topic.isascii() else len(topic.encode())
    own_bytes = len(message.content) + len(message.annotations)
    return own_bytes + topic_bytes + levels * LEVEL_BYTES


def is_alive(message: RetainedMessage, now_ms: int) -> bool:
    return message.expires_at_ms == NEVER_EXPIRES_MS or now_ms < message.expires_at_ms


class NodeRange:
    """Children of a node that a cursor has yet to look at, for a wildcard of its filter."""

    __slots__ = ("above", "at", "level", "order", "stop")

    def __init__(self, node: TopicNode, above: str | None, level: int) -> None:
        self.order = node.order
        self.at = 0
        self.stop = len(node.order)
        self.above = above
        """The topic of the node; None of the root."""
        self.level = level
        """Where the wildcard stands in the filter."""

    def next(self) -> TopicNode | None:
        """Take the next child; None for a hole, and for what a wildcard does not stand for."""
        child = self.order[self.at]
        self.at += 1
        if child is not None and self.above is None and child.word[:1] == RESERVED:  # mutant: RT5
            return None
        return child


class RetainedCursor:
    """Place in the matches of one topic filter."""

    __slots__ = ("_behind", "_first", "_levels", "_ranges")

    def __init__(self, root: TopicNode, topic_filter: str) -> None:
        self._levels = topic_filter.split("/")
        self._ranges: list[NodeRange] = []
        """The innermost last."""
        self._first = self._enter(root, None, 0)
        """A match that is in none of them."""
        self._behind: RetainedCursor | None = None

    def then(self, behind: RetainedCursor) -> None:
        """Go on with the matches of another cursor."""
        self._behind = behind

    @property
    def is_done(self) -> bool:
        return not self._ranges and self._first is None and self._behind is None

    def take(
        self, count_max: int, now_ms: int, *, visits_max: int = VISITS_MAX
    ) -> list[tuple[str, RetainedMessage]]:
        """Take matches that have not expired.  There may be none, and still more to come."""
        found: list[tuple[str, RetainedMessage]] = []
        match, self._first = self._first, None
        while True:
            if match is not None:
                topic, node = match
                if node.message is not None and is_alive(node.message, now_ms):
                    found.append((topic, node.message))
            if not visits_max or len(found) >= count_max:
                return found
            if not self._ranges:
                break
            visits_max -= 1
            match = self._go_on(self._ranges[-1])
        if self._behind is not None:
            found += self._behind.take(count_max - len(found), now_ms, visits_max=visits_max)
            if self._behind.is_done:
                self._behind = None
        return found

    def _go_on(self, inside: NodeRange) -> tuple[str, TopicNode] | None:
        """Look at one child; return it, or what is below it, if it matches."""
        if inside.at >= inside.stop:
            self._ranges.pop()
            return None
        child = inside.next()
        if child is None:
            return None
        topic = child.word if inside.above is None else f"{inside.above}/{child.word}"
        is_last = self._levels[inside.level] == ANY_LEVELS
        return self._enter(child, topic, inside.level if is_last else inside.level + 1)

    def _enter(
        self, node: TopicNode, topic: str | None, level: int
    ) -> tuple[str, TopicNode] | None:
        """Go down by the levels of the filter from one on, as far as the next wildcard."""
        while level < len(self._levels):
            word = self._levels[level]
            if word in (ANY_LEVEL, ANY_LEVELS):
                if node.children:
                    self._ranges.append(NodeRange(node, topic, level))
                return (topic, node) if word == ANY_LEVELS and topic is not None else None
            child = node.child(word)
            if child is None:
                return None
            node, topic = child, word if topic is None else f"{topic}/{word}"
            level += 1
        assert topic is not None, "a filter has a level"
        return topic, node
