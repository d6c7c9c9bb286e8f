"""A queue that deduplicates takes each message once, by what its log remembers."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fluffle.broker.queues.deduplication import KEY_HEADER, key_of
from fluffle.broker.queues.deduplication_window import DIGEST_BYTES
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import REMEMBERS, FactBatch
from fluffle.protocol.wire import FieldTable
from fluffle.raft.log import GroupId
from tests.simulation.facts import Violation


def headers_of(key: int | None) -> FieldTable | None:
    """Headers of a message that is to be taken once, if it has a key."""
    return {KEY_HEADER: ("S", b"key %d" % key)} if key is not None else None


class DeduplicationChecks:
    """Checks of the keys that the log of one queue remembers."""

    def __init__(self, group: GroupId) -> None:
        self._group = group
        self._taken: set[bytes] = set()
        """Keys of all messages that were ever accepted."""
        self.dropped = 0
        """Messages that were confirmed because another one is there."""

    def stands_for(self, content: bytes) -> bool:
        """True if one of the same key is, or was, in the queue: then it may be confirmed."""
        name = key_of(content)
        is_there = name is not None and name.digest in self._taken
        self.dropped += is_there
        return is_there

    def apply(
        self,
        batch: FactBatch,
        published: Iterable[bytes],
        before: Collection[bytes],
        after: Collection[bytes],
        *,
        is_sure: bool,
    ) -> None:
        """`published`: what clients have sent that comes with the entry; `before` and `after`: the
        keys that were and are on record, packed.  `is_sure`: the queue deduplicates, before and
        behind the entry."""
        names = [name for content in published if (name := key_of(content)) is not None]
        digests = [name.digest for name in names]
        self._taken.update(digests)
        if not is_sure or batch.version < REMEMBERS:
            return
        known, knows = unpacked(before), unpacked(after)
        if not known <= knows or any(map(forgets, batch.facts)):
            return  # all was forgotten, as by a purge: who can tell whether before they came
        if again := known.intersection(digests):
            raise Violation(f"keys: {again} are in {self._group}, and are taken once more")
        if missing := set(digests) - knows:
            raise Violation(f"keys: {missing} are taken, and {self._group} does not remember them")


def forgets(fact: f.Fact) -> bool:
    """True if all may be forgotten with an entry of which this is one; there may have been nothing
    to forget."""
    return isinstance(fact, f.Purged) or (isinstance(fact, f.Remembered) and not fact.kept)


def unpacked(keys: Iterable[bytes]) -> set[bytes]:
    """Without their times."""
    return {key[:DIGEST_BYTES] for key in keys}
