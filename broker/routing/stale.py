"""Bindings that are gone and still in a matcher: thousands are not taken out of it at once.

To take one out of a trie takes a walk along the words of its key, 128 at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.matcher import STOP, Matcher, MatchInput
from fluffle.protocol.properties import Properties

WORDS_AT_ONCE = 3_000
"""A piece of work of about a millisecond; what a binding costs besides counts for `WORDS_EACH`."""
WORDS_EACH = 6


class StaleMatcher:
    """A `Matcher` that finds what is still bound in one that holds more: `clears_in_steps`."""

    clears_in_steps = True

    __slots__ = ("_gone", "_left", "inner")

    def __init__(self, inner: Matcher) -> None:
        self.inner = inner
        self._gone: dict[Binding, None] = {}
        """Those that do not count.  They stay here when they were cleared away: a search that goes
        on meanwhile looks at what `inner` held when it began."""
        self._left: dict[Binding, None] = {}
        """Those of them that are still in `inner`."""

    @property
    def asks(self) -> MatchInput:
        return self.inner.asks

    def check(self, binding: Binding) -> None:
        self.inner.check(binding)

    def add(self, binding: Binding) -> bool:
        if binding in self._gone:  # it begins anew, behind the others
            del self._gone[binding]
            if binding in self._left:
                del self._left[binding]
                self.inner.discard(binding)
        return self.inner.add(binding)

    def discard(self, binding: Binding) -> bool:
        return binding not in self._gone and self.inner.discard(binding)

    def forget(self, bindings: Iterable[Binding]) -> None:
        """These are there, and gone from now on."""
        gone = dict.fromkeys(bindings)
        self._gone.update(gone)
        self._left.update(gone)

    def match(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Binding]:
        return self._bound(self.inner.match(routing_keys, properties))

    def search(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Iterable[Binding]]:
        for found in self.inner.search(routing_keys, properties):
            if found is STOP:
                yield STOP
            elif bound := tuple(self._bound(found)):
                yield bound

    def __iter__(self) -> Iterator[Binding]:
        return self._bound(self.inner)

    def __len__(self) -> int:
        return len(self.inner) - len(self._left)

    def _bound(self, found: Iterable[Binding]) -> Iterator[Binding]:
        return (binding for binding in found if binding not in self._gone)

    def clear(self) -> Iterator[None]:
        """Take what is gone out of `inner`, a piece at a time."""
        return cleared(self.inner, lambda: self._left.popitem()[0])


def emptied(matcher: Matcher) -> Iterator[None]:
    """Take all out of a matcher that nobody asks any more, a piece at a time: to let go of it at
    once would free a great many nodes of a trie in one go."""
    held = matcher.inner if isinstance(matcher, StaleMatcher) else matcher
    yield from cleared(held, list(held).pop)


def cleared(matcher: Matcher, take: Callable[[], Binding]) -> Iterator[None]:
    """Discard what `take` gives, until it raises."""
    words = 0
    while True:
        try:
            binding = take()
        except LookupError:
            return
        matcher.discard(binding)
        words += WORDS_EACH + binding.routing_key.count(".")
        if words >= WORDS_AT_ONCE:
            words = 0
            yield
