"""Messages between a session client and the leader of a queue.

A **client node** is one that serves clients of the queue.  It has one **session** with the queue,
in which each request that changes something, an operation, has a number.  Publishes of a run have
consecutive ones.

    client node --> leader    operations, in order; to each leader until their outcome is known
    leader --> client node    frames, numbered from 1 in each leadership, until they have arrived

A **leadership** is known by its term and its number in it: whoever leads for a whole term may have
to begin anew within it, with nothing but what is on record.

Whenever the client node begins to talk to a leader, or a link was opened again, that is an
**opening**, with a number that rises for the whole life of the client node's process.  Frames of
earlier openings are late, and dropped.

As bytes a frame is

    frame     [0 from a client, 1 from a leader; fields of the frame's head ...; messages]   msgpack
    message   [its place in the table of that direction; fields ...]
    run       [first, step, count]          token     [holder, ordinal, run]
    origins   [how many runs; `pack_origins`]
    counts    [acquired, failed]

Fields stand in the order of their class, counts at the end only if they say something: a
node of a version of links below 13 knows none.  How they are written and read follows from their
types, so a new message needs only a place in a table.  Decoding believes nothing: whatever is not
exactly such a frame raises `BadFrame`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from struct import error as StructError  # noqa: N812  it is an exception
from typing import Any, ClassVar, NamedTuple, NewType, TypeAlias, cast, get_type_hints

import msgpack

from fluffle.broker.base.message import Origin, pack_origins, unpack_origins
from fluffle.broker.cluster.codec import APART_BYTES_MIN, TEXT_ERRORS, BadFrame, pack_apart, unpack
from fluffle.broker.cluster.ports import Payload
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum.facts import Key

IN_EXCLUSIVE_USE = 0
"""The answer to a consumer that is not attached, for it or another would be alone.  No key."""


Signed = NewType("Signed", int)
"""Signed number of 64 bits; other numbers are not below zero."""


class SessionBoot(NamedTuple):
    """The boot of a node, as sessions name it."""

    counter: int
    nonce: int


class Token(NamedTuple):
    """Messages in one holder's hands, by the hand-out that put them there."""

    holder: Key
    ordinal: int
    run: range


# From a client node


@dataclass(slots=True)
class Open:
    """An opening: operations follow from `first` on, the lowest whose outcome is not known."""

    first: int


@dataclass(slots=True)
class Publish:
    """Operations `number`, `number + 1` ... are a message each."""

    number: int
    origins: list[Origin]
    contents: list[bytes]
    is_persistent: bool
    """True if they are to outlive the process, if the queue does."""
    expiration_ms: Lifetimes = None
    """TTL in ms, at most."""
    posted: DeadLetterIds | None = None
    """Ids of the messages that are another queue's dead letters."""
    counts: Counts = NEW
    """Delivery counts that each message brings along."""

    @property
    def count(self) -> int:
        return len(self.contents)


@dataclass(slots=True)
class Settle:
    """Hand-outs end: settled, or given back."""

    count: ClassVar[int] = 1
    number: int
    outcome: Outcome
    tokens: list[Token]
    """All of one holder; at least one."""


@dataclass(slots=True)
class Attach:
    """A consumer; the answer is its key, or `IN_EXCLUSIVE_USE`."""

    count: ClassVar[int] = 1
    number: int
    channel: int
    tag: str
    prefetch: int
    priority: Signed
    no_ack: bool
    is_exclusive: bool
    arguments: bytes


@dataclass(slots=True)
class Detach:
    """A consumer or getter gets nothing more; with an outcome, all that it holds comes back."""

    count: ClassVar[int] = 1
    number: int
    holder: Key
    outcome: Outcome | None


@dataclass(slots=True)
class Get:
    """The next message for a channel, if there is one; it is answered by a `GetAnswer`."""

    count: ClassVar[int] = 1
    number: int
    channel: int
    no_ack: bool


@dataclass(slots=True)
class Purge:
    """The answer is how many messages waited."""

    count: ClassVar[int] = 1
    number: int


@dataclass(slots=True)
class Credit:
    """Limit of the messages that a consumer may hold, or that are on their way to it.  Never a
    delta."""

    holder: Key
    limit: int


@dataclass(slots=True)
class NeverArrived:
    """The answer to `SessionRecord`: what of it has never arrived."""

    missing: list[Token]


@dataclass(slots=True)
class Forget:
    """The client node wants nothing more of its sessions below this one: they are over."""

    below: int


# From a leader


@dataclass(slots=True)
class DoneReply:
    """Operations are done; if they were publishes, messages are confirmed."""

    first: int
    count: int


@dataclass(slots=True)
class RejectedReply:
    """Publishes were refused, settlements came too late to count, or a purge does so: the queue is
    becoming one of another type."""

    first: int
    count: int


@dataclass(slots=True)
class AnswerReply:
    """An operation is done, and this is its answer."""

    number: int
    answer: int


@dataclass(slots=True)
class ExpectedReply:
    """An operation came before those in front of it; this one is next."""

    number: int


@dataclass(slots=True)
class Deliver:
    """Messages are in a consumer's hands; of one that does not acknowledge, they are gone."""

    holder: Key
    ordinal: int
    failed: int
    """How often handing each of them out has failed."""
    redelivered: bool
    runs: list[range]
    origins: list[Origin]
    contents: list[bytes]
    """Content of each message, in the order of the runs; `origins` likewise."""


@dataclass(slots=True)
class GetAnswer:
    """A get is done."""

    number: int
    holder: Key
    """Holder of what this channel gets."""
    ready: int
    """How many messages were ready then."""
    delivers: list[Deliver]
    """Delivery of the message, or empty."""
    is_crashed: bool = False
    """True if there is none because the queue hands out nothing."""


@dataclass(slots=True)
class CancelNotice:
    """A consumer is there no more, and its client node has not asked for that."""

    holder: Key


@dataclass(slots=True)
class RevokeNotice:
    """Messages are in their holder's hands no more, and have gone back."""

    tokens: list[Token]


@dataclass(slots=True)
class SessionRecord:
    """The session as the leader's log records it, sent first in a leadership."""

    next: int
    """Operations below are done, and nothing more comes of them than what is said here."""
    consumers: list[Key]
    getters: list[tuple[Key, int]]
    """With their channels."""
    tokens: list[Token]
    """All that is held."""


@dataclass(slots=True)
class SessionLost:
    """The session existed and is lost: nothing of it is left, or ever comes back."""


@dataclass(slots=True)
class NotLeader:
    """Notice of who leads the queue, from a node that does not or from the leader unasked."""

    term: int
    leader: str
    """Node that leads in that term; empty if not known."""
    leadership: int
    """The last one of that term, as far as is known."""


@dataclass(slots=True)
class Backlog:
    """Number of the client node's messages that wait in a queue which is behind."""

    count: int


@dataclass(slots=True)
class ActiveConsumerNotice:
    """A consumer alone is served from now on, or another is."""

    holder: Key
    is_active: bool


@dataclass(slots=True)
class TimeoutNotice:
    """Deliveries held for too long: they are requeued, and a consumer gets nothing more."""

    holder: Key
    tokens: list[Token]
    """Messages taken from the holder; none if they were settled in the meantime."""
    held_ms: int
    timeout_ms: int


FromClient: TypeAlias = (
    Open | Publish | Settle | Attach | Detach | Get | Purge | Credit | NeverArrived | Forget
)
Operation: TypeAlias = Publish | Settle | Attach | Detach | Get | Purge
"""Operation with a number: it takes `number` and as many after it as its `count`."""
FromLeader: TypeAlias = (
    DoneReply
    | RejectedReply
    | AnswerReply
    | ExpectedReply
    | Deliver
    | GetAnswer
    | CancelNotice
    | RevokeNotice
    | SessionRecord
    | SessionLost
    | NotLeader
    | Backlog
    | ActiveConsumerNotice
    | TimeoutNotice
)


@dataclass(slots=True)
class ClientFrame:
    """From a client node to the leader of a group."""

    group: int
    term: int
    """In which the receiver leads, as far as the client node knows."""
    leadership: int
    sender: SessionBoot
    receiver: SessionBoot
    session: int
    """The sessions of one life of a client node are counted."""
    opening: int
    received: int
    """Number of the last frame received of this leadership; all before it have arrived."""
    known: int
    """The outcome of all operations below is known."""
    messages: list[FromClient]


def without_counts(frame: ClientFrame) -> ClientFrame:
    """Frame without delivery counts, for a peer whose version of links does not know them."""
    if not any(isinstance(each, Publish) and each.counts is not NEW for each in frame.messages):
        return frame
    messages: list[FromClient] = [
        replace(each, counts=NEW) if isinstance(each, Publish) else each for each in frame.messages
    ]
    return replace(frame, messages=messages)


@dataclass(slots=True)
class LeaderFrame:
    """From the leader of a group to a client node."""

    group: int
    term: int
    leadership: int
    sender: SessionBoot
    receiver: SessionBoot
    session: int
    opening: int
    number: int
    """From 1 in each leadership.  0: beside all others, and never repeated."""
    messages: list[FromLeader]


Frame: TypeAlias = ClientFrame | LeaderFrame


class Leader(NamedTuple):
    """Where frames of a client node go."""

    node: str
    boot: SessionBoot
    term: int
    leadership: int = 1
    """Leadership within that term, counted from 1."""

    @property
    def leader_epoch(self) -> tuple[int, int]:
        """Later ones are higher."""
        return self.term, self.leadership


def tokens_of(deliver: Deliver) -> list[Token]:
    """Tokens that a delivery gives its holder."""
    return [Token(deliver.holder, deliver.ordinal, run) for run in deliver.runs]


def content_bytes_of(message: FromClient) -> int:
    """Content bytes of the message."""
    return sum(map(len, message.contents)) if isinstance(message, Publish) else 0


NUMBER_MAX = (1 << 63) - 1
"""Greatest number, so that a number and a count may be added."""
RUN_MAX = 1 << 32
"""The step and the length of a run, which is not made longer by being read."""
COUNT_MAX = 1 << 31
"""Greatest number of deliveries of a message: the log has room for more."""
MESSAGES_MAX = 1 << 16
"""In one message of ours: their origins are made one by one before there is anything of them."""

FROM_CLIENT: tuple[type[FromClient], ...] = (
    Open,
    Publish,
    Settle,
    Attach,
    Detach,
    Get,
    Purge,
    Credit,
    NeverArrived,
    Forget,
)
FROM_LEADER: tuple[type[FromLeader], ...] = (
    DoneReply,
    RejectedReply,
    AnswerReply,
    ExpectedReply,
    Deliver,
    GetAnswer,
    CancelNotice,
    RevokeNotice,
    SessionRecord,
    SessionLost,
    NotLeader,
    Backlog,
    ActiveConsumerNotice,
    TimeoutNotice,
)
OUTCOMES = (
    Outcome.ACKED,
    Outcome.REJECTED,
    Outcome.NACK_REQUEUED,
    Outcome.REJECT_REQUEUED,
    Outcome.LOST,
    Outcome.SUSPECTED,
    Outcome.UNSENT,
    Outcome.TIMED_OUT,
)
"""Outcomes by their numbers on the wire, from 1; 0 is none."""


ValuesOf: TypeAlias = Callable[[Any], Sequence[Any]]


class FieldCodec(NamedTuple):
    """How values of one type are written and read; both raise `BadFrame`."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


class RowCodec:
    """How the values of a class or tuple are written and read; most of them are numbers as such."""

    def __init__(
        self, kind: Callable[..., Any], values_of: ValuesOf | None, forms: list[FieldCodec]
    ) -> None:
        """`values_of`: all values of one, in the order of `forms`, which `kind` is called with;
        None of a tuple."""
        self._kind = kind
        self._values_of = values_of
        self._count = len(forms)
        self._may_end = forms[-1:] == [_COUNTS]
        """True if the last value is left out where it is None."""
        self._written = [(at, form.write) for at, form in enumerate(forms) if form.write != _same]
        self._numbers = [at for at, form in enumerate(forms) if form is _NUMBER]
        self._others = [
            (at, form.read) for at, form in enumerate(forms) if form.read not in (_number, _same)
        ]

    @property
    def is_rewritten(self) -> bool:
        """True if what is written of a value is anything else than its values."""
        return bool(self._written)

    def write(self, value: Any) -> Sequence[Any]:
        row = self._values_of(value) if self._values_of is not None else value
        if self._written:
            row = list(row)
            for at, write in self._written:
                row[at] = write(row[at])
            if self._may_end and row[-1] is None:
                row.pop()
        return row

    def read(self, value: object) -> Any:
        if type(value) is not list or len(value) != self._count:
            if type(value) is not list or not self._may_end or len(value) != self._count - 1:
                raise BadFrame(f"{value!r:.40} for {self._count} values")
            value.append(None)
        for at in self._numbers:
            number = value[at]
            if type(number) is not int or not 0 <= number <= NUMBER_MAX:
                raise BadFrame(f"{number!r:.40} for a number")
        for at, read in self._others:
            value[at] = read(value[at])
        return self._kind(*value)


def encode(frame: Frame) -> Payload:
    """Encode one frame."""
    direction = 0 if type(frame) is ClientFrame else 1
    numbers = _NUMBERS[direction]
    *head, messages = _SHAPES[type(frame)].write(frame)
    rows = [(numbers[kind := type(each)], *_SHAPES[kind].write(each)) for each in messages]
    row = [direction, *head, rows]
    if any(map(_is_large, messages)):
        return pack_apart(row)
    return cast(bytes, msgpack.packb(row, unicode_errors=TEXT_ERRORS))


def _is_large(message: FromClient | FromLeader) -> bool:
    """True if there are large contents in it, by the first."""
    if not isinstance(message, Publish | Deliver):
        return False
    return len(message.contents[0]) >= APART_BYTES_MIN


def decode(payload: bytes) -> Frame:
    """Raises `BadFrame`."""
    row = unpack(payload, text_errors=TEXT_ERRORS)
    direction, *values = _list(row) or [None]
    if type(direction) is not int or direction not in (0, 1):
        raise BadFrame(f"no frame is of kind {direction!r}")
    if not values:
        raise BadFrame("a frame without anything")
    table = (FROM_CLIENT, FROM_LEADER)[direction]
    values[-1] = [_message(table, item) for item in _list(values[-1])]
    return cast(Frame, _SHAPES[(ClientFrame, LeaderFrame)[direction]].read(values))


def _message(table: tuple[type, ...], item: object) -> Any:
    number, *values = _list(item) or [None]
    if type(number) is not int or not 0 <= number < len(table):
        raise BadFrame(f"no message has the number {number!r}")
    kind = table[number]
    message = _SHAPES[kind].read(values)
    check = _CHECKS.get(kind)
    if check is not None:
        check(message)
    return message


# What the types of fields do not say


def _check_publish(publish: Publish) -> None:
    count = len(publish.contents)
    _counted(publish.number + count - 1, NUMBER_MAX)
    if not count or len(publish.origins) != count:
        raise BadFrame("a publish of another number of messages")
    if isinstance(publish.expiration_ms, list) and len(publish.expiration_ms) != count:
        raise BadFrame("lifetimes of another number of messages")
    if publish.posted is not None and len(publish.posted.sequences) != count:
        raise BadFrame("dead letters of another number of messages")


def _check_settle(settle: Settle) -> None:
    if len({token.holder for token in settle.tokens}) != 1:
        raise BadFrame("a settlement that is not of one holder")


def _check_deliver(deliver: Deliver) -> None:
    count = sum(map(len, deliver.runs))
    if not count or not count == len(deliver.contents) == len(deliver.origins):
        raise BadFrame("a delivery of another number of messages")


def _check_outcome(outcome: DoneReply | RejectedReply) -> None:
    if not outcome.count:
        raise BadFrame("an outcome of nothing")


def _check_answer(answer: GetAnswer) -> None:
    if len(answer.delivers) > 1:
        raise BadFrame("a get of more than one message")


_CHECKS: dict[type, Callable[[Any], None]] = {
    Publish: _check_publish,
    Settle: _check_settle,
    Deliver: _check_deliver,
    DoneReply: _check_outcome,
    RejectedReply: _check_outcome,
    GetAnswer: _check_answer,
}


# Types of fields


def _same(value: Any) -> Any:
    return value


def _tuple(*values: Any) -> tuple[Any, ...]:
    return values


def _plain(kind: type) -> FieldCodec:
    def read(value: object) -> object:
        if type(value) is not kind:
            raise BadFrame(f"{value!r:.40} for {kind.__name__}")
        return value

    return FieldCodec(_same, read)


def _counted(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise BadFrame(f"{value!r:.40} for a number")
    return value


def _number(value: object) -> int:
    return _counted(value, NUMBER_MAX)


def _signed(value: object) -> int:
    if type(value) is not int or not -NUMBER_MAX - 1 <= value <= NUMBER_MAX:
        raise BadFrame(f"{value!r:.40} for a number")
    return value


def _list(value: object) -> list[Any]:
    if type(value) is not list:
        raise BadFrame(f"{value!r:.40} for a list")
    return value


def _list_of(form: FieldCodec) -> FieldCodec:
    return FieldCodec(
        lambda values: [form.write(value) for value in values],
        lambda values: [form.read(value) for value in _list(values)],
    )


def _plain_list_of(kind: type) -> FieldCodec:
    def read(values: object) -> list[Any]:
        if set(map(type, _list(values))) - {kind}:
            raise BadFrame(f"a list not of {kind.__name__} alone")
        return _list(values)

    return FieldCodec(_same, read)


def _row_of(kind: Callable[..., Any], *forms: FieldCodec) -> FieldCodec:
    """Codec of a tuple with or without field names."""
    shape = RowCodec(kind, None, list(forms))
    return FieldCodec(shape.write if shape.is_rewritten else _same, shape.read)


def _run(first: int, step: int, count: int) -> range:
    if not 1 <= step <= RUN_MAX or not 1 <= count <= RUN_MAX or first + step * count > NUMBER_MAX:
        raise BadFrame(f"{first}, {step}, {count} for a run")
    return range(first, first + step * count, step)


def _write_origins(origins: list[Origin]) -> list[Any]:
    pieces = pack_origins(origins)
    return [len(origins), len(pieces), b"".join(pieces)]


def _read_origins(value: object) -> list[Origin]:
    count, runs, data = _ORIGINS.read(value)
    if runs * 6 > len(data):
        raise BadFrame("origins that are not there")
    if count > MESSAGES_MAX:
        raise BadFrame(f"{count} messages at once")
    try:
        origins, end = unpack_origins(data, 0, runs, count)
    except (ValueError, StructError) as error:
        raise BadFrame(f"origins: {error}") from error
    if end != len(data):
        raise BadFrame("more than origins")
    return origins


def _read_outcome(value: object) -> Outcome:
    number = _counted(value, len(OUTCOMES))
    if not number:
        raise BadFrame("no outcome")
    return OUTCOMES[number - 1]


def _read_outcome_or_none(value: object) -> Outcome | None:
    return _read_outcome(value) if _counted(value, len(OUTCOMES)) else None


def _write_outcome(outcome: Outcome | None) -> int:
    return 0 if outcome is None else OUTCOMES.index(outcome) + 1


def _read_lifetimes(value: object) -> Lifetimes:
    if value is None or type(value) is int:
        return None if value is None else _number(value)
    lifetimes_ms = _list(value)
    if set(map(type, lifetimes_ms)) != {int}:
        raise BadFrame("lifetimes that are no numbers")
    if not 0 <= min(lifetimes_ms) <= max(lifetimes_ms) <= NUMBER_MAX:
        raise BadFrame("lifetimes that are too long, or less than none")
    return lifetimes_ms


def _write_posted(posted: DeadLetterIds | None) -> object:
    return None if posted is None else _POSTED.write(posted)


def _read_posted(value: object) -> DeadLetterIds | None:
    return None if value is None else cast(DeadLetterIds, _POSTED.read(value))


def _write_counts(counts: Counts) -> object:
    return None if counts is NEW else counts


def _read_counts(value: object) -> Counts:
    if value is None:
        return NEW
    if len(pair := _list(value)) != 2:
        raise BadFrame(f"{value!r:.40} for two counts")
    counts = Counts(*(_counted(count, COUNT_MAX) for count in pair))
    if not 0 < counts.failed <= counts.acquired:
        raise BadFrame(f"{counts} of what has failed elsewhere")
    return counts


_COUNTS = FieldCodec(_write_counts, _read_counts)
_NUMBER = FieldCodec(_same, _number)
_POSTED = _row_of(DeadLetterIds, *[_NUMBER] * 3, *[_list_of(_NUMBER)] * 2)
_RUN = FieldCodec(lambda run: (run.start, run.step, len(run)), _row_of(_run, *[_NUMBER] * 3).read)
_ORIGINS = _row_of(_tuple, _NUMBER, _NUMBER, _plain(bytes))
_TOKEN = _row_of(Token, _NUMBER, _NUMBER, _RUN)
_OUTCOME = FieldCodec(_write_outcome, _read_outcome)

_BY_TYPE: dict[Any, FieldCodec] = {
    int: _NUMBER,
    Signed: FieldCodec(_same, _signed),
    bool: _plain(bool),
    str: _plain(str),
    bytes: _plain(bytes),
    SessionBoot: _row_of(
        SessionBoot, _NUMBER, FieldCodec(_same, lambda value: _counted(value, (1 << 64) - 1))
    ),
    list[int]: _list_of(_NUMBER),
    list[bytes]: _plain_list_of(bytes),
    list[range]: _list_of(_RUN),
    list[Token]: _list_of(_TOKEN),
    list[tuple[int, int]]: _list_of(_row_of(_tuple, _NUMBER, _NUMBER)),
    list[Origin]: FieldCodec(_write_origins, _read_origins),
    Outcome: _OUTCOME,
    Lifetimes: FieldCodec(_same, _read_lifetimes),
    DeadLetterIds | None: FieldCodec(_write_posted, _read_posted),
    Counts: _COUNTS,
    Outcome | None: FieldCodec(_write_outcome, _read_outcome_or_none),
    list[FromClient]: FieldCodec(_same, _same),
    list[FromLeader]: FieldCodec(_same, _same),
}
"""The annotation of a field -> how its values are written and read; messages are on their own."""


def _shape_of(kind: Any) -> RowCodec:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    forms = [_BY_TYPE[hints[name]] for name in names]
    if len(names) > 1:
        return RowCodec(kind, attrgetter(*names), forms)  # which gives a tuple only of two or more
    return RowCodec(kind, lambda value: [getattr(value, name) for name in names], forms)


_SHAPES: dict[type, RowCodec] = {Deliver: _shape_of(Deliver)}
_BY_TYPE[list[Deliver]] = _list_of(
    FieldCodec(_SHAPES[Deliver].write, lambda value: _message((Deliver,), [0, *_list(value)]))
)
_SHAPES |= {kind: _shape_of(kind) for kind in (*FROM_CLIENT, *FROM_LEADER)}
_SHAPES |= {kind: _shape_of(kind) for kind in (ClientFrame, LeaderFrame)}
_NUMBERS = tuple(
    {kind: number for number, kind in enumerate(t)} for t in (FROM_CLIENT, FROM_LEADER)
)
