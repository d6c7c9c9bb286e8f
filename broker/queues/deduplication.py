"""A queue that takes each message once: `x-message-deduplication`, which RabbitMQ does not have.

    a message comes --> names it a key? --> is that known? --> it is dropped, and its publisher
                           | no                | no             hears that the queue has it
                           v                   v
                        the queue <------------+   what it takes is known from now on, what it
                                                   refuses is not

A key is known for so long, and as long as it is one of so many that came last, wherever its message
is by then.  Names of arguments and headers are those of a plugin for RabbitMQ,
https://github.com/noxdafox/rabbitmq-message-deduplication, which knows a key while the message is
in the queue.  What has died and comes from another queue names no key: it was published once, and
a circle of dead-letter exchanges is not to drop it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import KW_ONLY, dataclass, field
from hashlib import blake2b
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.queues.arguments import DURATION_MS_MAX
from fluffle.broker.queues.deduplication_window import DIGEST_BYTES, KEY, DeduplicationWindow
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_at
from fluffle.broker.queues.journal import DeduplicationKeys
from fluffle.broker.queues.length_limit import LengthLimit
from fluffle.broker.queues.publish_target import Enqueue, EnqueueResult, PartialResult
from fluffle.broker.queues.queue_api import QueueClock
from fluffle.broker.queues.settings import DeduplicationCache
from fluffle.protocol.properties import headers_of
from fluffle.protocol.wire import FieldValue

KEYED_TTL_MS = 600_000
"""Time for which a queue that takes keys knows one: a client may take so long to publish again what
was not confirmed."""

KEYED_MAX = 1024
"""Keys that such a queue knows: as many messages as a client may have unanswered."""

KEY_HEADER = "x-deduplication-header"
TTL_HEADER = "x-cache-ttl"

NONE: AbstractSet[bytes] = frozenset()

KEY_OF = attrgetter("key")


class MessageKey(NamedTuple):
    """The deduplication key of a message, from its headers."""

    digest: bytes
    ttl_ms: int | None
    """Time in ms for which the key is remembered, if the message names one."""


def key_of(content: bytes) -> MessageKey | None:
    """None if a message names no key, or none that could be one: a table, an array, or nothing.

    A number is another key than the text of it.
    """
    headers = headers_of(content)
    if headers is None or KEY_HEADER not in headers:
        return None
    said = _said(headers[KEY_HEADER][1])
    if said is None:
        return None
    _tag, ttl_ms = headers.get(TTL_HEADER, ("V", None))
    is_time = isinstance(ttl_ms, int) and not isinstance(ttl_ms, bool) and ttl_ms > 0
    digest = blake2b(said, digest_size=DIGEST_BYTES).digest()
    return MessageKey(digest, min(int(str(ttl_ms)), DURATION_MS_MAX) if is_time else None)


def _said(value: FieldValue) -> bytes | None:
    """Other octets for each other key."""
    match value:
        case bytes():
            return b"s" + value
        case bool() | int() | float():
            return f"{type(value).__name__} {value!r}".encode()
    return None


KEYED_CACHE = DeduplicationCache(KEYED_MAX, KEYED_TTL_MS, reads_headers=False)


@dataclass(slots=True, eq=False)
class DuplicateFilter:
    """Filter that drops messages whose keys one queue has had lately."""

    cache: DeduplicationCache
    """How much it knows; it may be given another."""
    window: DeduplicationWindow
    """Keys that are known already; it is changed here alone from now on."""
    _enqueue: Enqueue
    _: KW_ONLY
    time: QueueClock
    on_duplicates: Callable[[int], None]
    """Gets how many messages were dropped."""
    record: DeduplicationKeys | None
    """None where the queue ends with the process."""
    _fleeting: set[bytes] = field(default_factory=set, init=False)
    """Keys of messages that end with the process, where others do not: such a one vouches for
    nothing that is to outlive it.  Some may not be known any more."""
    _is_passing: bool = field(default=False, init=False)
    """True once the incoming messages have been checked."""

    def sift(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        persistent: bool,  # noqa: FBT001 - in order, as `enqueue` has them
        expiration_ms: Lifetimes,
    ) -> EnqueueResult | PartialResult | None:
        """Add those that are no duplicates; None if none names a key, and none is added yet.

        A duplicate of one that comes with it has the outcome of that.
        """
        if self._is_passing:
            return None
        names = [*map(self._name_of, origins, contents)]
        if not any(names):
            return None
        now_ms = self.time.now_ms()
        fresh, copies = self._sorted_out(names, now_ms, self._fleeting if persistent else NONE)
        result = self._put(
            fresh,
            origins,
            contents,
            content_bytes,
            persistent=persistent,
            expiration_ms=expiration_ms,
        )
        is_refused = dict.fromkeys(fresh, result is EnqueueResult.REJECTED)
        if isinstance(result, PartialResult):
            spans = (range(start, stop) for start, stop in result.rejected)
            is_refused.update((fresh[at], True) for span in spans for at in span)
        taken = [place for place in fresh if not is_refused[place]]
        self._remember([name for place in taken if (name := names[place])], now_ms, persistent)
        if not copies:
            return result
        rejected = [place for place in fresh if is_refused[place]]
        rejected += [place for place, first in copies.items() if is_refused.get(first, False)]
        dropped = sorted(copies.keys() - rejected)
        self.on_duplicates(len(dropped))
        if isinstance(result, PartialResult):
            result = result.accepted
        elif result is EnqueueResult.REJECTED:
            result = self._vouched(persistent)
        return PartialResult(len(contents), result, spans_of(sorted(rejected)), spans_of(dropped))

    def _name_of(self, origin: Origin, content: bytes) -> MessageKey | None:
        if origin.past is not MessageAnnotations.NONE:
            return None
        named = key_of(content) if self.cache.reads_headers else None
        return named or (MessageKey(origin.key, None) if origin.key else None)

    def _sorted_out(
        self, names: Sequence[MessageKey | None], now_ms: int, beside: AbstractSet[bytes]
    ) -> tuple[list[int], dict[int, int]]:
        """Where messages stand that are no duplicates, and where others do, each with the place of
        the first of its kind; -1 if that came before.  Keys that are in `beside` do not count."""
        fresh, copies, places = list[int](), dict[int, int](), dict[bytes, int]()
        for place, name in enumerate(names):
            if name is None:
                fresh.append(place)
            elif name.digest not in beside and self.window.knows(name.digest, now_ms):
                copies[place] = -1
            elif name.digest in places:
                copies[place] = places[name.digest]
            else:
                places[name.digest] = place
                fresh.append(place)
        return fresh, copies

    def _put(
        self,
        fresh: list[int],
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes,
    ) -> EnqueueResult | PartialResult:
        """Add the messages at these places."""
        if not fresh:
            return self._vouched(persistent)
        if len(fresh) < len(contents):
            origins = [origins[place] for place in fresh]
            contents = [contents[place] for place in fresh]
            content_bytes = sum(map(len, contents))
            expiration_ms = lifetimes_at(expiration_ms, fresh)
        self._is_passing = True
        try:
            return self._enqueue(
                origins,
                contents,
                content_bytes,
                persistent=persistent,
                expiration_ms=expiration_ms,
            )
        finally:
            self._is_passing = False

    def _vouched(self, persistent: bool) -> EnqueueResult:  # noqa: FBT001 - as of `sift`
        """Result for duplicates: RECORDED only where keys are stored, for the first copy may not be
        safe yet."""
        is_recorded = persistent and self.record is not None
        return EnqueueResult.RECORDED if is_recorded else EnqueueResult.ACCEPTED

    def _remember(
        self,
        names: list[MessageKey],
        now_ms: int,
        persistent: bool,  # noqa: FBT001 - as of `sift`
    ) -> None:
        """A message that does not outlive the process is not known for longer."""
        if not names:
            return  # what is known here changes with what is on record, and never alone
        packed = b"".join(KEY.pack(name.digest, self._until_ms(name, now_ms)) for name in names)
        self.window.add(packed)
        self.window.keep(self.cache.size)
        self.window.drop_over(now_ms)
        if self.record is None:
            return
        digests = {name.digest for name in names}
        if persistent:
            self._fleeting -= digests
            self.record.remembered(packed, len(self.window))
            return
        self._fleeting |= digests
        if len(self._fleeting) > 2 * len(self.window):
            self._fleeting = {digest for digest in self._fleeting if digest in self.window}

    def _until_ms(self, name: MessageKey, now_ms: int) -> int:
        ttl_ms = name.ttl_ms if name.ttl_ms is not None else self.cache.ttl_ms
        return now_ms + ttl_ms if ttl_ms is not None else 0

    def forget(self) -> None:
        """Nothing is known any more."""
        self.window.keep(0)
        self._fleeting.clear()
        if self.record is not None:
            self.record.remembered(b"", 0)


def spans_of(places: Sequence[int]) -> list[tuple[int, int]]:
    """From where to where, of rising places."""
    spans: list[tuple[int, int]] = []
    for place in places:
        if spans and spans[-1][1] == place:
            spans[-1] = spans[-1][0], place + 1
        else:
            spans.append((place, place + 1))
    return spans


FilterFactory: TypeAlias = Callable[[DeduplicationCache, Enqueue], DuplicateFilter]
"""Makes the filter of a queue that deduplicates from now on, or did before the process began."""


Guard: TypeAlias = Callable[
    [list[Origin], list[bytes], int, bool, Lifetimes], EnqueueResult | PartialResult | int | None
]
"""Takes some of what is to come in, or refuses it.  A number, if it has counted how many bytes all
of that are, or None: it is all right as it is."""


class EnqueueFilter:
    """Check of messages before they enter one queue."""

    __slots__ = ("_enqueue", "_make", "_sieve")

    def __init__(self, make: FilterFactory, enqueue: Enqueue | None) -> None:
        """`enqueue`: of a queue that takes keys."""
        self._make = make
        self._enqueue = enqueue
        self._sieve: DuplicateFilter | None = None

    def go_by(
        self, cache: DeduplicationCache | None, bound: LengthLimit | None, enqueue: Enqueue
    ) -> tuple[Guard, ...]:
        """The settings of the queue may have changed: the guards that it is to ask, in turn.  What
        is known already needs no room."""
        sieve = self._sieve
        if cache is None and self._enqueue is not None:
            cache = KEYED_CACHE
        elif cache is None:
            self.forget()
            self._sieve = None
        elif sieve is None:
            sieve = self._sieve = self._make(cache, enqueue)
        if cache is not None and sieve is not None:
            sieve.cache = cache
        sifts: list[Guard] = [self._sieve.sift] if self._sieve is not None else []
        if self._enqueue is not None and sieve is None:
            sifts.append(self._sift_keyed)
        if bound is not None and bound.refuses:
            sifts.append(bound.admit)
        elif bound is not None and bound.drops_requeued:
            sifts.append(bound.make_way)
        return tuple(sifts)

    def _sift_keyed(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        persistent: bool,  # noqa: FBT001 - as of `sift`
        expiration_ms: Lifetimes,
    ) -> EnqueueResult | PartialResult | None:
        """Sift messages from the first on that has a key: in most queues none ever has."""
        if self._sieve is None:
            if not any(map(KEY_OF, origins)):
                return None
            assert self._enqueue is not None
            self._sieve = self._make(KEYED_CACHE, self._enqueue)
        return self._sieve.sift(origins, contents, content_bytes, persistent, expiration_ms)

    def forget(self) -> None:
        """Nothing that comes in is known any more."""
        if self._sieve is not None:
            self._sieve.forget()
