"""Topic exchanges: a trie of binding keys, one node a word.  AMQP 0-9-1 §3.1.3.3.

    bindings  a.b   a.*   #.c                root --a--> . --b--> (a.b)
                                              |           \\--*--> (a.*)
                                              #--> . --c--> (#.c)

A key is split at dots: `a..b` has an empty word in the middle, the empty key has no words at all.
`*` stands for one word, `#` for any number of words; both only where they are a whole word.

A routing key is matched as a non-deterministic automaton is run: word by word, with the set of all
nodes that the words so far can have led to.  A node is in the set once however many ways lead
there, so the cost is at most words times nodes, whatever the binding keys are.  A `#` that has been
reached stays in the set to the end, and is kept apart: nothing has to be done to have it stay.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from sys import intern

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding, Bindings, with_binding, without_binding
from fluffle.broker.routing.matcher import STOP, MatchInput, in_parts
from fluffle.protocol.properties import Properties

ONE_WORD = "*"
ANY_WORDS = "#"

ANY_WORDS_MAX = 2
"""How many `#` a binding key may have; RabbitMQ's limit since 4.3.5."""

NODES_AT_ONCE = 512
"""Looked at without a stop, which takes a fraction of a millisecond."""


class TrieNode:
    """The end of all binding keys that begin with the words from the root to here."""

    __slots__ = ("bindings", "children", "word")

    def __init__(self, word: str) -> None:
        self.word = word
        self.children: dict[str, TrieNode] | TrieNode | None = None
        """Children by their words, or the only child.  Most nodes have one child, and a dict of one
        costs four nodes."""
        self.bindings: Bindings = ()
        """Bindings whose key ends here."""

    def child(self, word: str) -> "TrieNode | None":
        children = self.children
        if isinstance(children, dict):
            return children.get(word)
        return children if children is not None and children.word == word else None

    def grow(self, word: str) -> "TrieNode":
        """A new child for a word that has none."""
        grown = TrieNode(intern(word))
        if self.children is None:
            self.children = grown
        elif isinstance(self.children, dict):
            self.children[grown.word] = grown
        else:
            self.children = {self.children.word: self.children, grown.word: grown}
        return grown

    def prune(self, word: str) -> None:
        """Drop the child for `word`, which is there."""
        if not isinstance(self.children, dict):
            self.children = None
            return
        del self.children[word]
        if len(self.children) == 1:
            self.children = next(iter(self.children.values()))

    @property
    def is_bare(self) -> bool:
        return not self.bindings and self.children is None


def words_of(key: str) -> list[str]:
    return key.split(".") if key else []


class BindingTrie:
    """A trie of bindings by words; no node without a binding below or at it is kept, but the root,
    and others while a walk has stopped that may have come to them."""

    __slots__ = ("_bare", "_count", "_stopped_walks", "root")

    def __init__(self) -> None:
        self.root = TrieNode("")
        self._count = 0
        self._stopped_walks = 0
        self._bare: list[Sequence[str]] = []
        """The words of nodes that have lost a binding since one has stopped."""

    def add(self, words: Sequence[str], binding: Binding) -> bool:
        """Add a binding at the end of these words; whether it is new."""
        node = self.root
        for word in words:
            node = node.child(word) or node.grow(word)
        if binding in node.bindings:
            return False
        node.bindings = with_binding(node.bindings, binding)
        self._count += 1
        return True

    def discard(self, words: Sequence[str], binding: Binding) -> bool:
        """Remove a binding from the end of these words; whether it was there."""
        path = self._path(words)
        if path is None or binding not in path[-1].bindings:
            return False
        path[-1].bindings = without_binding(path[-1].bindings, binding)
        self._count -= 1
        if self._stopped_walks:
            self._bare.append(words)
        else:
            _prune(path)
        return True

    def walked(self, walk: Iterator[Iterable[Binding]]) -> Iterator[Iterable[Binding]]:
        """Yield what a walk finds.  One binding that is put in the place of another where it has
        stopped is found, though nothing was there in between."""
        has_stopped = False
        try:
            for found in walk:
                if found is STOP and not has_stopped:
                    has_stopped = True
                    self._stopped_walks += 1
                yield found
        finally:
            if has_stopped:
                self._end_walk()

    def _end_walk(self) -> None:
        self._stopped_walks -= 1
        if self._stopped_walks:
            return
        bare, self._bare = self._bare, []
        for words in bare:
            if (path := self._path(words)) is not None:
                _prune(path)

    def __iter__(self) -> Iterator[Binding]:
        pending = [self.root]
        while pending:
            node = pending.pop()
            if node.bindings:
                yield from node.bindings
            if isinstance(node.children, dict):
                pending.extend(node.children.values())
            elif node.children is not None:
                pending.append(node.children)

    def __len__(self) -> int:
        return self._count

    def _path(self, words: Sequence[str]) -> list[TrieNode] | None:
        """The nodes from the root along `words`, both ends included, if they are all there."""
        node: TrieNode | None = self.root
        path = [self.root]
        for word in words:
            node = path[-1].child(word)
            if node is None:
                return None
            path.append(node)
        return path


def _prune(path: list[TrieNode]) -> None:
    """Drop the bare nodes at the end of a path."""
    while len(path) > 1 and path[-1].is_bare:
        bare = path.pop()
        path[-1].prune(bare.word)


class TopicMatcher:
    """The bindings of a topic exchange in a trie of their keys."""

    asks = MatchInput.KEYS
    clears_in_steps = True

    __slots__ = ("_trie",)

    def __init__(self) -> None:
        self._trie = BindingTrie()

    def check(self, binding: Binding) -> None:
        if binding.routing_key.count(ANY_WORDS) <= ANY_WORDS_MAX:
            return
        if (used := words_of(binding.routing_key).count(ANY_WORDS)) > ANY_WORDS_MAX:
            raise PreconditionFailed(
                f"Topic binding key '{binding.routing_key}' uses {used} '#' wildcards,"
                f" at most {ANY_WORDS_MAX} are allowed"
            )

    def add(self, binding: Binding) -> bool:
        return self._trie.add(words_of(binding.routing_key), binding)

    def discard(self, binding: Binding) -> bool:
        return self._trie.discard(words_of(binding.routing_key), binding)

    def search(
        self,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Iterator[Iterable[Binding]]:
        visits = count(1)
        return self._trie.walked(
            chain.from_iterable(self._walk(words_of(key), visits) for key in routing_keys)
        )

    def _walk(self, words: Sequence[str], visits: Iterator[int]) -> Iterator[Iterable[Binding]]:
        """Search with one key; `visits` numbers how often a node is looked at."""
        staying: dict[TrieNode, None] = {}
        reached: dict[TrieNode, None] = {}
        _reach(self._trie.root, reached, staying)
        for word in words:
            before, reached = reached, {}
            for node in chain(before, tuple(staying)):
                children = node.children
                if isinstance(children, dict):
                    _reach(children.get(word), reached, staying)
                    _reach(children.get(ONE_WORD), reached, staying)
                elif children is not None and children.word in (word, ONE_WORD):
                    _reach(children, reached, staying)
                if not next(visits) % NODES_AT_ONCE:
                    yield STOP
        for node in chain(reached, staying):
            if node.bindings:
                yield from in_parts(node.bindings)
            if not next(visits) % NODES_AT_ONCE:
                yield STOP

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._trie)

    def __len__(self) -> int:
        return len(self._trie)


def _reach(
    node: TrieNode | None, reached: dict[TrieNode, None], staying: dict[TrieNode, None]
) -> None:
    """Add `node` and what it leads to without a word: a `#` below it, which may stand for none."""
    while node is not None and node not in staying:
        if node.word == ANY_WORDS:
            staying[node] = None
        else:
            reached[node] = None
        node = node.child(ANY_WORDS)
