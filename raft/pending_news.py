"""Pending news that concern many receivers, delivered to some of them at a time.

That a node has gone or is back concerns thousands of groups at once, and a turn that informed all
of them would hold up pings, and callers that wait for one of them.  So each is informed when
something else comes up for it, before that, and the others some in each turn.  Whatever their
order, each hears of everything once, and in the order in which it happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

Receiver = TypeVar("Receiver")
News = TypeVar("News")


class PendingNews(Generic[Receiver, News]):
    """News not delivered yet, by receiver, oldest first.  Falsy while there is none."""

    __slots__ = ("_news",)

    def __init__(self) -> None:
        self._news: dict[Receiver, tuple[News, ...]] = {}
        """News by receiver, in the order in which receivers are informed."""

    def __bool__(self) -> bool:
        return bool(self._news)

    def add(self, receivers: Iterable[Receiver], news: News) -> None:
        """Add news for all these receivers, in this order, behind those that wait already."""
        pending = self._news
        for receiver in receivers:
            pending[receiver] = (*pending.get(receiver, ()), news)

    def first(self, count: int) -> list[Receiver]:
        """Return the receivers to be served next, so many at most; `take` returns the news of
        each."""
        return list(islice(self._news, count))

    def take(self, receiver: Receiver) -> tuple[News, ...]:
        """Take the news of one receiver; nothing if there is none."""
        return self._news.pop(receiver, ())
