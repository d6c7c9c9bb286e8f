"""Deduplication keys that a leader has on record for the next one.

What comes in with an entry is one fact of it.  While it is not on record that all members read such
a fact, since an older version runs on one or its node was away ever since the queue was made, the
leader alone knows; it says all of that as soon as it may.
"""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.queues.deduplication import DuplicateFilter
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.publish_target import Enqueue
from fluffle.broker.queues.quorum.encoding import REMEMBERS
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder
from fluffle.broker.queues.quorum.entry_version import EntryVersions
from fluffle.broker.queues.quorum.facts import Remembered
from fluffle.broker.queues.quorum.queue_time import QueueTime
from fluffle.broker.queues.settings import DeduplicationCache

NO_WINDOW = DeduplicationWindow()
"""Never changed: most queues take what comes again."""


class LoggedDeduplicationKeys:
    """The `DeduplicationKeys` of one leadership."""

    __slots__ = (
        "_builder",
        "_is_behind",
        "_kept",
        "_known",
        "_news",
        "_on_duplicates",
        "_time",
        "_versions",
        "_window",
    )  # fmt: skip

    def __init__(
        self,
        known: DeduplicationWindow | None,
        builder: EntryBuilder,
        announcing: EntryVersions,
        time: QueueTime,
        on_duplicates: Callable[[int], None],
    ) -> None:
        """`known`: what the image knows, which is not changed here.  `on_duplicates` is told how
        many messages were dropped."""
        self._known = known
        self._builder = builder
        self._versions = announcing
        self._time = time
        self._on_duplicates = on_duplicates
        self._window = NO_WINDOW
        """Of the filter."""
        self._news: list[bytes] = []
        """Keys that are to be said."""
        self._kept: int | None = None
        """How many are known with them; None: nothing is to be said."""
        self._is_behind = False
        """Whether there are others that could not be said."""

    def duplicate_filter(self, cache: DeduplicationCache, enqueue: Enqueue) -> DuplicateFilter:
        """A `FilterFactory`."""
        known, self._known = self._known, None
        self._window = known.copy() if known is not None else DeduplicationWindow()
        return DuplicateFilter(
            cache,
            self._window,
            enqueue,
            time=self._time,
            on_duplicates=self._on_duplicates,
            record=self,
        )

    def remembered(self, packed: bytes, kept: int) -> None:
        if not kept:
            self._news.clear()
        self._news.append(packed)
        self._kept = kept

    @property
    def may_be_said(self) -> bool:
        """Whether something that could not be may by now."""
        return self._is_behind and self._versions.version >= REMEMBERS

    def say(self) -> None:
        """What came in since this was called last, if all members read it."""
        if self._kept is None:
            return
        if self._versions.version < REMEMBERS:
            self._news.clear()
            self._is_behind = True
            return
        packed = self._window.packed() if self._is_behind else b"".join(self._news)
        self._builder.say(Remembered(packed, self._kept))  # mutant: K2
        self._news.clear()
        self._kept, self._is_behind = None, False
