"""Methods as objects and as frames: the cold ones by table, the hot ones by hand.

The classes are pamqp's; what differs is how they are read and written:

- `arguments` and the other tables hold a FieldTable, with tags, see `field_table`;
- long strings hold bytes, see `octets`; short strings hold text;
- no name is validated, because RabbitMQ takes names that pamqp refuses.  So construct methods
  that carry names or tables with `make`, which does not validate either.

The writers at the end of the file are for what leaves once a message; tests hold them equal to
`encode_method`.

Source: AMQP 0-9-1 §1.2-1.8 and §4.2.5.2 (bits are packed, lowest first).
"""

import struct
from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any, ClassVar, ParamSpec, TypeAlias, TypeVar, cast

from pamqp.base import Frame
from pamqp.commands import (
    INDEX_MAPPING,
    Basic,
    Channel,
    Confirm,
    Connection,
    Exchange,
    Queue,
    Tx,
)
from pamqp.common import FieldTable as PamqpTable

from fluffle.protocol import wire
from fluffle.protocol.spec import (
    FRAME_END,
    FRAME_METHOD,
    FRAME_OVERHEAD_BYTES,
    SHORTSTR_BYTES_MAX,
    ProtocolError,
    ReplyCode,
)
from fluffle.protocol.steps import Steps
from fluffle.protocol.wire import FieldTable

__all__ = [
    "Access",
    "Basic",
    "Channel",
    "Confirm",
    "Connection",
    "Exchange",
    "Method",
    "Queue",
    "Tx",
    "decode_method",
    "deliver_prefix",
    "encode_method",
    "field_table",
    "get_ok_frame",
    "make",
    "octets",
    "pamqp_table",
    "return_frame",
]

Method: TypeAlias = Frame

P = ParamSpec("P")
M = TypeVar("M", bound=Method)


class Access:
    """The class that AMQP 0-9-1 dropped and RabbitMQ still answers: realms of 0-8."""

    class Request(Frame):
        """Asks for a ticket; RabbitMQ grants each."""

        __slots__: ClassVar[list[str]] = [  # noqa: RUF023  the order of the wire
            "realm",
            "exclusive",
            "passive",
            "active",
            "write",
            "read",
        ]
        frame_id: ClassVar[int] = 10
        index: ClassVar[int] = 0x001E000A
        name: ClassVar[str] = "Access.Request"
        synchronous: ClassVar[bool] = True
        valid_responses: ClassVar[list[str]] = ["Access.RequestOk"]

        _realm = "shortstr"
        _exclusive = _passive = _active = _write = _read = "bit"

        def __init__(
            self,
            *,
            realm: str = "/data",
            exclusive: bool = False,
            passive: bool = True,
            active: bool = True,
            write: bool = True,
            read: bool = True,
        ) -> None:
            self.realm = realm
            self.exclusive = exclusive
            self.passive = passive
            self.active = active
            self.write = write
            self.read = read

    class RequestOk(Frame):
        """The ticket, which is not read."""

        __slots__: ClassVar[list[str]] = ["ticket"]
        frame_id: ClassVar[int] = 11
        index: ClassVar[int] = 0x001E000B
        name: ClassVar[str] = "Access.RequestOk"

        _ticket = "short"

        def __init__(self, ticket: int = 1) -> None:
            self.ticket = ticket


def decode_method(payload: bytes) -> Method:
    """Read the payload of a method frame: class id, method id, arguments.

    Raises ProtocolError, with the ids of the method as RabbitMQ gives them: COMMAND_INVALID for
    a method that does not exist (RabbitMQ drops the connection without a word), FRAME_ERROR for
    arguments that are cut short, too long or not UTF-8.
    """
    method = _new_method(payload)
    try:
        complete = _read_arguments(method, payload) == len(payload)
    except (IndexError, struct.error):
        complete = False
    except ProtocolError as error:
        if error.explanation == wire.MALFORMED_UTF8:
            raise
        complete = False
    if not complete:
        raise _undecodable(payload)
    return method


def decode_method_in_steps(payload: bytes) -> Steps[Method]:
    """Decode as `decode_method` does, for one that may be long."""
    method = _new_method(payload)
    try:
        complete = (yield from _arguments_in_steps(method, payload)) == len(payload)
    except (IndexError, struct.error):
        complete = False
    except ProtocolError as error:
        if error.explanation == wire.MALFORMED_UTF8:
            raise
        complete = False
    if not complete:
        raise _undecodable(payload)
    return method


def _new_method(payload: bytes) -> Method:
    """Return a method of the class that a payload names, without arguments."""
    if len(payload) < _INDEX.size:
        raise ProtocolError(
            ReplyCode.FRAME_ERROR, f"type 1, all octets = {_erlang_binary(payload)}: unknown_frame"
        )
    (index,) = _INDEX.unpack_from(payload)
    class_id, method_id = index >> 16, index & 0xFFFF
    cls = _CLASSES.get(index)
    if cls is None:
        raise ProtocolError(
            ReplyCode.COMMAND_INVALID,
            f"unimplemented method {class_id}.{method_id}",
            class_id=class_id,
            method_id=method_id,
        )
    return cls.__new__(cls)


def _undecodable(payload: bytes) -> ProtocolError:
    """Return the error for arguments that cannot be read."""
    class_id, method_id = (int.from_bytes(payload[at : at + 2], "big") for at in (0, 2))
    return ProtocolError(
        ReplyCode.FRAME_ERROR,
        f"cannot decode {_erlang_binary(payload[_INDEX.size :])}",
        class_id=class_id,
        method_id=method_id,
    )


def encode_method(channel: int, method: Method) -> bytes:
    """Encode a method as a whole frame.

    Raises ValueError, TypeError or struct.error when an argument does not fit its type.
    """
    out = bytearray(_FRAME_START.pack(FRAME_METHOD, channel, 0, method.index))
    for names, kind in _STEPS[type(method)]:
        if kind == "bit":
            out.append(sum(bool(getattr(method, name)) << at for at, name in enumerate(names)))
        else:
            _WRITERS[kind](out, getattr(method, names[0]))
    out.append(FRAME_END)
    _SIZE.pack_into(out, 3, len(out) - FRAME_OVERHEAD_BYTES)
    return bytes(out)


def encode_payload(method: Method) -> bytes:
    """Encode the payload of a method's frame, as `decode_method` reads it.  Raises as
    `encode_method` does."""
    return encode_method(0, method)[_FRAME_HEAD_BYTES:-1]


_signature_of = cache(signature)
"""Signature of a method class, found once: that costs more than all else that a method does."""


@cache
def _defaults_of(cls: Callable[..., Method]) -> dict[str, object]:
    """Return the arguments of a method in their order; pamqp has a default for each."""
    parameters = _signature_of(cls).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def make(cls: Callable[P, M], *args: P.args, **kwargs: P.kwargs) -> M:
    """Construct a method without pamqp's validation: `make(Queue.DeclareOk, queue="a b", …)`."""
    defaults = _defaults_of(cls)
    given = dict(zip(defaults, args, strict=False)) | kwargs
    values = defaults | given
    if len(given) < len(args) + len(kwargs) or len(values) > len(defaults):
        _signature_of(cls).bind(*args, **kwargs)  # says what is wrong
    method_class = cast(type[M], cls)
    method = method_class.__new__(method_class)
    for name, value in values.items():
        setattr(method, name, value)
    return method


def field_table(argument: PamqpTable | None) -> FieldTable:
    """Return what a table argument of a decoded method holds, against what pamqp declares it to
    be."""
    return cast(FieldTable, argument or {})


def pamqp_table(table: FieldTable) -> PamqpTable:
    """Convert a FieldTable for a method's argument: the opposite of `field_table`."""
    return cast(PamqpTable, table)


def octets(argument: str) -> bytes:
    """Return what a long string argument of a decoded method holds, as `field_table` for tables."""
    return cast(bytes, argument)


def deliver_prefix(
    channel: int, consumer_tag: str, exchange: str, routing_key: str
) -> tuple[bytes, bytes, bytes]:
    """Return what surrounds the delivery tag in the basic.deliver frames of one consumer and route.

    Returns (prefix, tail, tail of a redelivery); a frame is prefix + 8 bytes of tag + tail.
    """
    tag = wire.encode_shortstr(consumer_tag)
    tail = wire.encode_shortstr(exchange) + wire.encode_shortstr(routing_key) + _END
    size = _INDEX.size + len(tag) + _TAG_BYTES + len(tail)
    prefix = _FRAME_START.pack(FRAME_METHOD, channel, size, Basic.Deliver.index) + tag
    return prefix, b"\x00" + tail, b"\x01" + tail


def get_ok_frame(
    channel: int,
    delivery_tag: int,
    *,
    redelivered: bool,
    exchange: str,
    routing_key: str,
    message_count: int,
) -> bytes:
    """Encode a basic.get-ok; its content follows."""
    names = wire.encode_shortstr(exchange) + wire.encode_shortstr(routing_key)
    size = _TAGGED.size - _FRAME_HEAD_BYTES + len(names) + 4
    start = _TAGGED.pack(FRAME_METHOD, channel, size, Basic.GetOk.index, delivery_tag, redelivered)
    return start + names + message_count.to_bytes(4, "big") + _END


def return_frame(
    channel: int, code: ReplyCode, text: str, exchange: str, routing_key: str
) -> bytes:
    """Return a basic.return with `text` as it stands; its content follows."""
    arguments = code.to_bytes(2, "big") + b"".join(
        map(wire.encode_shortstr, (text, exchange, routing_key))
    )
    size = _INDEX.size + len(arguments)
    start = _FRAME_START.pack(FRAME_METHOD, channel, size, Basic.Return.index)
    return start + arguments + _END


_INDEX = struct.Struct(">I")
"""Class id and method id as one number: pamqp's index."""
_SIZE = struct.Struct(">I")
_FRAME_START = struct.Struct(">BHII")
_FRAME_HEAD_BYTES = 7
_TAG_BYTES = 8
_TAGGED = struct.Struct(">BHIIQB")
"""The start of a frame, a delivery tag and an octet of bits."""
_END = bytes((FRAME_END,))

_NUMBERS = {
    "octet": struct.Struct(">B"),
    "short": struct.Struct(">H"),
    "long": struct.Struct(">I"),
    "longlong": struct.Struct(">Q"),
}

_Reader: TypeAlias = Callable[[bytes, int], tuple[Any, int]]
_Writer: TypeAlias = Callable[[bytearray, Any], None]


def _number_reader(number: struct.Struct) -> _Reader:
    return lambda buffer, offset: (number.unpack_from(buffer, offset)[0], offset + number.size)


def _number_writer(number: struct.Struct) -> _Writer:
    return lambda out, value: out.extend(number.pack(value))


def _write_longstr(out: bytearray, value: bytes | str) -> None:
    wire.write_longstr(out, value.encode() if isinstance(value, str) else value)


def _write_table(out: bytearray, value: FieldTable | None) -> None:
    wire.write_table(out, value or {})


_READERS: dict[str, _Reader] = {
    **{kind: _number_reader(number) for kind, number in _NUMBERS.items()},
    "shortstr": wire.read_shortstr,
    "any shortstr": wire.read_any_shortstr,
    "longstr": wire.read_longstr,
    "table": wire.read_table,
}
_WRITERS: dict[str, _Writer] = {
    **{kind: _number_writer(number) for kind, number in _NUMBERS.items()},
    "shortstr": wire.write_shortstr,
    "any shortstr": wire.write_shortstr,
    "longstr": _write_longstr,
    "table": _write_table,
}

_Steps: TypeAlias = tuple[tuple[tuple[str, ...], str], ...]
"""(names, type) of each argument; bits that stand together are one step of several names."""


def _steps(cls: type[Method]) -> _Steps:
    steps: list[tuple[tuple[str, ...], str]] = []
    for name in cls.attributes():
        kind = cls.amqp_type(name)
        if kind == "shortstr" and cls is Basic.Publish:
            kind = "any shortstr"
        if kind == "bit" and steps and steps[-1][1] == "bit":
            steps[-1] = ((*steps[-1][0], name), kind)
        else:
            steps.append(((name,), kind))
    return tuple(steps)


_CLASSES: dict[int, type[Method]] = {
    **INDEX_MAPPING,
    Access.Request.index: Access.Request,
    Access.RequestOk.index: Access.RequestOk,
}
_STEPS: dict[type[Method], _Steps] = {cls: _steps(cls) for cls in _CLASSES.values()}


def _read_arguments(method: Method, payload: bytes) -> int:
    """Set the attributes of `method`; returns the offset behind the last argument."""
    return _read_some(method, _STEPS[type(method)], payload, _INDEX.size)


def _read_some(method: Method, steps: _Steps, payload: bytes, offset: int) -> int:
    """Set some attributes of `method`, the first of which is at an offset; the one behind them."""
    for names, kind in steps:
        if kind == "bit":
            for at, name in enumerate(names):
                setattr(method, name, bool(payload[offset] >> at & 1))
            offset += 1
        else:
            value, offset = _READERS[kind](payload, offset)
            setattr(method, names[0], value)
    return offset


def _arguments_in_steps(method: Method, payload: bytes) -> Steps[int]:
    """Read as `_read_arguments` does."""
    offset = _INDEX.size
    for step in _STEPS[type(method)]:
        (name, *_), kind = step
        if kind == "table":
            value, offset = yield from wire.read_table_in_steps(payload, offset)
            setattr(method, name, value)
        else:
            offset = _read_some(method, (step,), payload, offset)
    return offset


def _erlang_binary(data: bytes) -> str:
    """Octets as RabbitMQ shows them; what a reply text has no room for is left away."""
    shown = ",".join(map(str, data[: SHORTSTR_BYTES_MAX // 2]))
    return f"<<{shown}>>"
