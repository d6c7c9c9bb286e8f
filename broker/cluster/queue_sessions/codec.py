"""Frames of sessions as bytes.

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
from dataclasses import fields
from functools import partial
from operator import attrgetter
from struct import error as StructError  # noqa: N812  it is an exception
from typing import Any, NamedTuple, TypeAlias, cast, get_type_hints

import msgpack

from fluffle.broker.base.message import Origin, pack_origins, unpack_origins
from fluffle.broker.cluster.codec import APART_BYTES_MIN, TEXT_ERRORS, BadFrame, pack_apart, unpack
from fluffle.broker.cluster.ports import Payload
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum.messages import (
    MESSAGES_MAX,
    ActiveConsumerNotice,
    AnswerReply,
    Attach,
    Backlog,
    CancelNotice,
    ClientFrame,
    Credit,
    Deliver,
    Detach,
    DoneReply,
    ExpectedReply,
    Forget,
    Frame,
    FromClient,
    FromLeader,
    Get,
    GetAnswer,
    LeaderFrame,
    NeverArrived,
    NotLeader,
    Open,
    Publish,
    Purge,
    RejectedReply,
    RevokeNotice,
    SessionBoot,
    SessionLost,
    SessionRecord,
    Settle,
    Signed,
    TimeoutNotice,
    Token,
)

NUMBER_MAX = (1 << 63) - 1
"""Greatest number, so that a number and a count may be added."""
RUN_MAX = 1 << 32
"""The step and the length of a run, which is not made longer by being read."""
COUNT_MAX = 1 << 31
"""Greatest number of deliveries of a message: the log has room for more."""
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
    if publish.dead_letter_ids is not None and len(publish.dead_letter_ids.sequences) != count:
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
        found = _list(values)
        if set(map(type, found)) - {kind}:
            raise BadFrame(f"a list not of {kind.__name__} alone")
        return found

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


def _write_dead_letter_ids(dead_letter_ids: DeadLetterIds | None) -> object:
    return None if dead_letter_ids is None else _DEAD_LETTER_IDS.write(dead_letter_ids)


def _read_dead_letter_ids(value: object) -> DeadLetterIds | None:
    return None if value is None else cast(DeadLetterIds, _DEAD_LETTER_IDS.read(value))


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
_DEAD_LETTER_IDS = _row_of(DeadLetterIds, *[_NUMBER] * 3, *[_list_of(_NUMBER)] * 2)
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
        SessionBoot, _NUMBER, FieldCodec(_same, partial(_counted, most=(1 << 64) - 1))
    ),
    list[int]: _list_of(_NUMBER),
    list[bytes]: _plain_list_of(bytes),
    list[range]: _list_of(_RUN),
    list[Token]: _list_of(_TOKEN),
    list[tuple[int, int]]: _list_of(_row_of(_tuple, _NUMBER, _NUMBER)),
    list[Origin]: FieldCodec(_write_origins, _read_origins),
    Outcome: _OUTCOME,
    Lifetimes: FieldCodec(_same, _read_lifetimes),
    DeadLetterIds | None: FieldCodec(_write_dead_letter_ids, _read_dead_letter_ids),
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
