"""News that concern many, told to some of them at a time.

That a node has gone or is back concerns thousands of groups at once, and a turn that told all of
them would hold up pings, and whoever waits for one of them.  So each is told when something else
comes up for it, before that, and the others some in each turn.  Whatever order they are told in,
each hears of everything once, and in the order in which it happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

Receiver = TypeVar("Receiver")
News = TypeVar("News")


class PendingNews(Generic[Receiver, News]):
    """What has not been told yet.  Empty, and nothing to look at, but after something happened."""

    __slots__ = ("_news",)

    def __init__(self) -> None:
        self._news: dict[Receiver, tuple[News, ...]] = {}
        """Oldest first; whoever comes first is told first."""

    def __bool__(self) -> bool:
        return bool(self._news)

    def add(self, receivers: Iterable[Receiver], news: News) -> None:
        """All of them are to hear it, in this order, behind those that are to be told before."""
        untold = self._news
        for receiver in receivers:
            untold[receiver] = (*untold.get(receiver, ()), news)

    def first(self, count: int) -> list[Receiver]:
        """Those to be told next, so many at most: `take` what each is to be told."""
        return list(islice(self._news, count))

    def take(self, receiver: Receiver) -> tuple[News, ...]:
        """What one is to be told now; nothing if there is none."""
        return self._news.pop(receiver, ())
