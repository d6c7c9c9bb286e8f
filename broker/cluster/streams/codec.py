"""Frames of streams as bytes, and back.

    frame     [0 from an edge, 1 from a leader; fields of the frame's head ...; messages]   msgpack
    message   [its place in the table of that direction; fields ...]
    run       [first, step, count]          token     [holder, ordinal, run]
    origins   [how many runs; `pack_origins`]

Fields stand in the order of their class.  How they are written and read follows from their types,
so a new message needs only a place in a table.  Decoding believes nothing: whatever is not exactly
such a frame raises `BadFrame`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from struct import error as StructError  # noqa: N812  it is an exception
from typing import Any, NamedTuple, cast, get_type_hints

import msgpack

from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.streams import messages as m
from fluffle.broker.message import Origin
from fluffle.broker.queues.handout import Outcome
from fluffle.broker.queues.origin_runs import pack_origins, unpack_origins

NUMBER_MAX = (1 << 63) - 1
"""So that a number and a count may be added."""
RUN_MAX = 1 << 32
"""The step and the length of a run, which is not made longer by being read."""
MESSAGES_MAX = 1 << 16
"""In one message of ours: their origins are made one by one before there is anything of them."""

FROM_EDGE: tuple[type[m.FromEdge], ...] = (
    m.Open,
    m.Publish,
    m.Settle,
    m.Attach,
    m.Detach,
    m.Get,
    m.Purge,
    m.Credit,
    m.Holding,
    m.Forget,
)
FROM_LEADER: tuple[type[m.FromLeader], ...] = (
    m.Done,
    m.NotTaken,
    m.Answer,
    m.Expected,
    m.Gone,
    m.Deliver,
    m.GetAnswer,
    m.Cancelled,
    m.Revoked,
    m.OnRecord,
    m.SessionLost,
    m.NotLeader,
)
OUTCOMES = (
    Outcome.ACKED,
    Outcome.REJECTED,
    Outcome.RETURNED,
    Outcome.REFUSED,
    Outcome.LOST,
    Outcome.SUSPECTED,
    Outcome.UNSENT,
)
"""By their numbers on the wire, from 1; 0 is none."""


class Form(NamedTuple):
    """How values of one type are written and read; both raise `BadFrame`."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def encode(frame: m.Frame) -> bytes:
    """One frame."""
    direction = 0 if type(frame) is m.EdgeFrame else 1
    numbers = _NUMBERS[direction]
    *head, messages = _row(frame)
    rows = [[numbers[type(message)], *_row(message)] for message in messages]
    return cast(bytes, msgpack.packb([direction, *head, rows], unicode_errors="surrogateescape"))


def decode(payload: bytes) -> m.Frame:
    """Raises `BadFrame`."""
    try:
        row = msgpack.unpackb(payload, unicode_errors="surrogateescape")
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise BadFrame(f"not msgpack: {error}") from error
    direction, *values = _list(row) or [None]
    if type(direction) is not int or direction not in (0, 1):
        raise BadFrame(f"no frame is of kind {direction!r}")
    table = (FROM_EDGE, FROM_LEADER)[direction]
    if not values:
        raise BadFrame("a frame without anything")
    values[-1] = [_message(table, item) for item in _list(values[-1])]
    return cast(m.Frame, _made((m.EdgeFrame, m.LeaderFrame)[direction], values))


def _message(table: tuple[type, ...], item: object) -> Any:
    number, *values = _list(item) or [None]
    if type(number) is not int or not 0 <= number < len(table):
        raise BadFrame(f"no message has the number {number!r}")
    message = _made(table[number], values)
    _check(message)
    return message


def _check(message: Any) -> None:
    """What the types of fields do not say."""
    if type(message) is m.Publish:
        _counted(message.first + len(message.contents) - 1, NUMBER_MAX)
        if not message.contents or len(message.origins) != len(message.contents):
            raise BadFrame("a publish of another number of messages")
    elif type(message) is m.Settle:
        if len({token.holder for token in message.tokens}) != 1:
            raise BadFrame("a settlement that is not of one holder")
    elif type(message) is m.Deliver:
        count = sum(map(len, message.runs))
        if not count or not count == len(message.contents) == len(message.origins):
            raise BadFrame("a delivery of another number of messages")
    elif type(message) in (m.Done, m.NotTaken) and not message.count:
        raise BadFrame("an outcome of nothing")
    elif type(message) is m.GetAnswer and len(message.delivers) > 1:
        raise BadFrame("a get of more than one message")


def _row(value: Any) -> list[Any]:
    return [form.write(getattr(value, name)) for name, form in _FORMS[type(value)]]


def _made(kind: type, values: list[Any]) -> Any:
    forms = _FORMS[kind]
    if len(values) != len(forms):
        raise BadFrame(f"a {kind.__name__} of {len(values)} fields")
    return kind(*[form.read(value) for (_, form), value in zip(forms, values, strict=True)])


# Types of fields


def _same(value: Any) -> Any:
    return value


def _plain(kind: type) -> Form:
    def read(value: object) -> object:
        if type(value) is not kind:
            raise BadFrame(f"{value!r:.40} for {kind.__name__}")
        return value

    return Form(_same, read)


def _counted(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise BadFrame(f"{value!r:.40} for a number")
    return value


def _number(value: object) -> int:
    return _counted(value, NUMBER_MAX)


def _list(value: object) -> list[Any]:
    if type(value) is not list:
        raise BadFrame(f"{value!r:.40} for a list")
    return value


def _list_of(form: Form) -> Form:
    return Form(
        lambda values: [form.write(value) for value in values],
        lambda values: [form.read(value) for value in _list(values)],
    )


def _row_of(kind: Callable[..., Any], *forms: Form) -> Form:
    """Of a tuple with names or without."""

    def read(values: object) -> Any:
        row = _list(values)
        if len(row) != len(forms):
            raise BadFrame(f"{len(row)} values, not {len(forms)}")
        return kind(*[form.read(value) for form, value in zip(forms, row, strict=True)])

    return Form(
        lambda row: [form.write(value) for form, value in zip(forms, row, strict=True)], read
    )


def _read_run(value: object) -> range:
    first, step, count = [_number(part) for part in _list(value)] if _is_run(value) else (0, 0, 0)
    if not 1 <= step <= RUN_MAX or not 1 <= count <= RUN_MAX or first + step * count > NUMBER_MAX:
        raise BadFrame(f"{value!r:.40} for a run")
    return range(first, first + step * count, step)


def _is_run(value: object) -> bool:
    return type(value) is list and len(value) == 3


def _write_origins(origins: list[Origin]) -> list[Any]:
    pieces = pack_origins(origins)
    return [len(origins), len(pieces), b"".join(pieces)]


def _read_origins(value: object) -> list[Origin]:
    count, runs, data = _row_of(lambda *row: row, _NUMBER, _NUMBER, _plain(bytes)).read(value)
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


_NUMBER = Form(_same, _number)
_RUN = Form(lambda run: [run.start, run.step, len(run)], _read_run)
_TOKEN = _row_of(m.Token, _NUMBER, _NUMBER, _RUN)
_OUTCOME = Form(_write_outcome, _read_outcome)

_BY_TYPE: dict[Any, Form] = {
    int: _NUMBER,
    bool: _plain(bool),
    str: _plain(str),
    bytes: _plain(bytes),
    m.Boot: _row_of(m.Boot, _NUMBER, Form(_same, lambda value: _counted(value, (1 << 64) - 1))),
    list[int]: _list_of(_NUMBER),
    list[bytes]: _list_of(_plain(bytes)),
    list[range]: _list_of(_RUN),
    list[m.Token]: _list_of(_TOKEN),
    list[tuple[int, int]]: _list_of(_row_of(lambda *row: row, _NUMBER, _NUMBER)),
    list[Origin]: Form(_write_origins, _read_origins),
    Outcome: _OUTCOME,
    Outcome | None: Form(_write_outcome, _read_outcome_or_none),
    list[m.FromEdge]: Form(_same, _same),
    list[m.FromLeader]: Form(_same, _same),
}
"""The annotation of a field -> how its values are written and read; messages are on their own."""


def _forms_of(kind: Any) -> list[tuple[str, Form]]:
    hints = get_type_hints(kind)
    return [(field.name, _BY_TYPE[hints[field.name]]) for field in fields(kind)]


_FORMS: dict[type, list[tuple[str, Form]]] = {m.Deliver: _forms_of(m.Deliver)}
_BY_TYPE[list[m.Deliver]] = _list_of(
    Form(_row, lambda value: _message((m.Deliver,), [0, *_list(value)]))
)
_FORMS |= {kind: _forms_of(kind) for kind in (*FROM_EDGE, *FROM_LEADER)}
_FORMS |= {kind: _forms_of(kind) for kind in (m.EdgeFrame, m.LeaderFrame)}
_NUMBERS = tuple({kind: number for number, kind in enumerate(t)} for t in (FROM_EDGE, FROM_LEADER))
