"""Methods: every one round trips, equals pamqp's where pamqp is right, and fails as RabbitMQ's."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame

from fluffle.protocol import methods, wire
from fluffle.protocol.methods import (
    Access,
    Basic,
    Channel,
    Confirm,
    Connection,
    Exchange,
    Method,
    Queue,
    Tx,
    decode_method,
    decode_method_in_steps,
    encode_method,
    field_table,
    make,
    octets,
    pamqp_table,
)
from fluffle.protocol.spec import SHORTSTR_BYTES_MAX, ProtocolError, ReplyCode
from fluffle.protocol.steps import whole
from fluffle.protocol.wire import FieldTable
from tests.suite.seeds import machine_settings

CLASSES: list[type[Method]] = [
    *commands.INDEX_MAPPING.values(),
    Access.Request,
    Access.RequestOk,
]
TABLE: FieldTable = {"x-max-length": ("s", 5), "bytes": ("S", b"\xff"), "big": ("L", -1)}

SHORTSTRS = st.text(max_size=63)
CHANNELS = st.integers(1, 65535)
TAGS = st.integers(0, 2**64 - 1)
VALUES: dict[str, st.SearchStrategy[object]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": TAGS,
    "shortstr": SHORTSTRS,
    "longstr": st.binary(),
    "table": st.sampled_from([{}, TABLE]),
}


def payload_of(frame_bytes: bytes) -> bytes:
    return frame_bytes[7:-1]


def filled(data: st.DataObject, cls: type[Method]) -> Method:
    """A method with arguments drawn by their types."""
    method = cls.__new__(cls)
    for name in cls.attributes():
        setattr(method, name, data.draw(VALUES[cls.amqp_type(name)], label=name))
    return method


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name)
@machine_settings()
@given(data=st.data(), channel=CHANNELS)
def test_each_method_round_trips(data: st.DataObject, channel: int, cls: type[Method]) -> None:
    method = filled(data, cls)
    raw = encode_method(channel, method)
    kind, number, size, index = struct.unpack_from(">BHII", raw)
    assert (kind, number, size, index) == (1, channel, len(raw) - 8, cls.index)
    assert raw[-1] == 0xCE
    read = decode_method(payload_of(raw))
    assert type(read) is cls
    assert dict(read) == dict(method)


PLAIN_METHODS = [
    Connection.Tune(2047, 131072, 60),
    Connection.Open("/"),
    Connection.OpenOk(),
    Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0),
    Connection.CloseOk(),
    Connection.Blocked("low on memory"),
    Connection.Unblocked(),
    Connection.UpdateSecret("secret", "because"),
    Connection.UpdateSecretOk(),
    Connection.StartOk(response="\0guest\0guest"),
    Channel.Flow(True),
    Channel.Close(404, "NOT_FOUND - no queue 'é' in vhost '/'", 50, 10),
    Exchange.Declare(exchange="x", exchange_type="topic", durable=True, internal=True),
    Exchange.Delete(exchange="x", nowait=True),
    Exchange.Bind(destination="a", source="b", routing_key="c.#", nowait=True),
    Exchange.UnbindOk(),
    Queue.Declare(queue="q", passive=True, exclusive=True, nowait=True),
    Queue.DeclareOk("q", 1, 2),
    Queue.Bind(queue="q", exchange="x", routing_key="k"),
    Queue.Unbind(queue="q", exchange="x", routing_key="k"),
    Queue.Delete(queue="q", if_empty=True),
    Basic.Qos(0, 300, True),
    Basic.Consume(queue="q", consumer_tag="t", no_ack=True, nowait=True),
    Basic.Cancel("t", True),
    Basic.Publish(exchange="x", routing_key="k", mandatory=True),
    Basic.Return(312, "NO_ROUTE", "x", "k"),
    Basic.Deliver("t", 7, True, "x", "k"),
    Basic.GetOk(7, True, "x", "k", 3),
    Basic.GetEmpty(),
    Basic.Ack(7, True),
    Basic.Nack(7, True, True),
    Basic.Reject(7, False),
    Basic.Recover(True),
    Basic.RecoverOk(),
    Tx.Select(),
    Tx.CommitOk(),
    Confirm.Select(True),
]


@pytest.mark.parametrize("method", PLAIN_METHODS, ids=lambda method: method.name)
def test_frames_are_pamqps_where_no_table_is_in_them(method: Method) -> None:
    assert encode_method(5, method) == frame.marshal(method, 5)


def test_the_ids_that_pamqp_does_not_know() -> None:
    request = decode_method(bytes.fromhex("001e000a") + b"\x05/data" + b"\x15")
    assert isinstance(request, Access.Request)
    assert dict(request) == {
        "realm": "/data",
        "exclusive": True,
        "passive": False,
        "active": True,
        "write": False,
        "read": True,
    }
    assert encode_method(1, Access.RequestOk()) == bytes.fromhex("01000100000006001e000b0001ce")


def test_tables_keep_their_tags_and_long_strings_their_octets() -> None:
    start_ok = make(Connection.StartOk, pamqp_table(TABLE), mechanism="AMQPLAIN", response="\0é")
    read = decode_method(payload_of(encode_method(0, start_ok)))
    assert isinstance(read, Connection.StartOk)
    assert field_table(read.client_properties) == TABLE
    assert octets(read.response) == "\0é".encode()


def test_no_table_is_an_empty_table() -> None:
    declare = make(Queue.Declare, queue="q")
    assert field_table(declare.arguments) == {}
    read = decode_method(payload_of(encode_method(1, declare)))
    assert isinstance(read, Queue.Declare)
    assert field_table(read.arguments) == {}


def test_names_that_pamqp_refuses() -> None:
    name = "naïve (queue) / " + "x" * 200
    with pytest.raises(ValueError, match="Invalid value for queue"):
        Queue.DeclareOk(name, 0, 0)
    ok = make(Queue.DeclareOk, name, message_count=1, consumer_count=2)
    read = decode_method(payload_of(encode_method(1, ok)))
    assert dict(read) == {"queue": name, "message_count": 1, "consumer_count": 2}


def test_channel_open_ok_as_rabbitmq_sends_it() -> None:
    assert encode_method(2, make(Channel.OpenOk, channel_id="")) == bytes.fromhex(
        "01000200000008 0014000b 00000000 ce"
    )


def test_make_knows_the_arguments() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'qeue'"):
        make(Queue.Declare, qeue="q")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="multiple values for argument 'queue'"):
        make(Queue.DeclareOk, "q", 1, 2, queue="q")  # type: ignore[misc]
    with pytest.raises(TypeError, match="too many positional arguments"):
        make(Queue.DeclareOk, "q", 1, 2, 3)  # type: ignore[call-arg]


def test_an_argument_that_does_not_fit_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="256 bytes"):
        encode_method(1, make(Basic.ConsumeOk, "x" * 256))
    with pytest.raises(struct.error):
        encode_method(1, make(Queue.PurgeOk, 2**32))


def test_bits_without_meaning_are_ignored() -> None:
    read = decode_method(bytes.fromhex("0055000a ff"))
    assert dict(read) == {"nowait": True}


DECLARE = bytes.fromhex("0032000a")


@pytest.mark.parametrize(
    ("payload", "code", "text", "ids"),
    [
        (
            DECLARE + b"\0\0\x02q1\x08\0\0\0\0junk",
            ReplyCode.FRAME_ERROR,
            "cannot decode <<0,0,2,113,49,8,0,0,0,0,106,117,110,107>>",
            (50, 10),
        ),
        (
            bytes.fromhex("005a000a") + b"xx",
            ReplyCode.FRAME_ERROR,
            "cannot decode <<120,120>>",
            (90, 10),
        ),
        (
            DECLARE + b"\0\0\x05ab",
            ReplyCode.FRAME_ERROR,
            "cannot decode <<0,0,5,97,98>>",
            (50, 10),
        ),
        (
            DECLARE + b"\0\0\x02\xff\xfe\x08\0\0\0\0",
            ReplyCode.FRAME_ERROR,
            "Malformed UTF-8 in shortstr",
            (0, 0),
        ),
        (
            b"\0\x32\0",
            ReplyCode.FRAME_ERROR,
            "type 1, all octets = <<0,50,0>>: unknown_frame",
            (0, 0),
        ),
    ],
)
def test_broken_methods_as_measured_on_rabbitmq_4_0_5(
    payload: bytes, code: ReplyCode, text: str, ids: tuple[int, int]
) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_method(payload)
    assert caught.value.code is code
    assert caught.value.explanation == text
    assert (caught.value.class_id, caught.value.method_id) == ids


@pytest.mark.parametrize("field", [b"\x01kU\0\1", b"\x01kd\x7f\xf8\0\0\0\0\0\0", b"\x01kI\0"])
def test_a_broken_table_is_answered(field: bytes) -> None:
    """RabbitMQ 4.0.5 drops the connection without a word."""
    payload = DECLARE + b"\0\0\x02q1\x08" + struct.pack(">I", len(field)) + field
    with pytest.raises(ProtocolError, match="FRAME_ERROR - cannot decode") as caught:
        decode_method(payload)
    assert (caught.value.class_id, caught.value.method_id) == (50, 10)


@pytest.mark.parametrize("arguments", [{}, {"a": "b", "c": {"d": [1, 2]}}])
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_method_in_steps_is_the_same(arguments: dict[str, wire.PlainValue], cut: int) -> None:
    table = pamqp_table(wire.to_table(arguments))
    payload = payload_of(encode_method(1, make(Queue.Declare, queue="q", arguments=table)))
    payload = payload[: len(payload) - cut]
    if not cut:
        read, expected = whole(decode_method_in_steps(payload)), decode_method(payload)
        assert (type(read), dict(read)) == (type(expected), dict(expected))
        return
    with pytest.raises(ProtocolError) as in_steps:
        whole(decode_method_in_steps(payload))
    with pytest.raises(ProtocolError) as at_once:
        decode_method(payload)
    assert vars(in_steps.value) == vars(at_once.value)


@pytest.mark.parametrize(("class_id", "method_id"), [(50, 99), (99, 10), (10, 99)])
def test_an_unknown_method_is_answered(class_id: int, method_id: int) -> None:
    """RabbitMQ 4.0.5 drops the connection without a word."""
    with pytest.raises(ProtocolError) as caught:
        decode_method(struct.pack(">HH", class_id, method_id) + b"anything")
    error = caught.value
    assert error.code is ReplyCode.COMMAND_INVALID
    assert error.explanation == f"unimplemented method {class_id}.{method_id}"
    assert (error.class_id, error.method_id) == (class_id, method_id)


@pytest.mark.parametrize("method", PLAIN_METHODS, ids=lambda method: method.name)
def test_a_method_cut_anywhere_is_a_frame_error(method: Method) -> None:
    payload = payload_of(encode_method(1, method))
    for length in range(len(payload)):
        with pytest.raises(ProtocolError, match="FRAME_ERROR"):
            decode_method(payload[:length])
    with pytest.raises(ProtocolError, match="FRAME_ERROR - cannot decode"):
        decode_method(payload + b"\0")


def test_a_long_payload_makes_no_long_text() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_method(DECLARE + b"\x00" * 100_000)
    assert len(caught.value.explanation) < 1_000
    assert len(caught.value.reply_text) == SHORTSTR_BYTES_MAX


@given(st.sampled_from(CLASSES), st.binary(max_size=40))
def test_any_bytes_are_a_method_or_a_frame_error(cls: type[Method], arguments: bytes) -> None:
    try:
        method = decode_method(struct.pack(">I", cls.index) + arguments)
    except ProtocolError as error:
        refusal: ProtocolError | None = error
    else:
        refusal = None
        assert type(method) is cls
    assert refusal is None or refusal.code is ReplyCode.FRAME_ERROR


@given(CHANNELS, SHORTSTRS, SHORTSTRS, SHORTSTRS, TAGS)
def test_deliver_from_its_parts(
    channel: int, consumer_tag: str, exchange: str, routing_key: str, tag: int
) -> None:
    prefix, *tails = methods.deliver_prefix(channel, consumer_tag, exchange, routing_key)
    for redelivered, tail in zip((False, True), tails, strict=True):
        deliver = make(Basic.Deliver, consumer_tag, tag, redelivered, exchange, routing_key)
        assert prefix + tag.to_bytes(8, "big") + tail == encode_method(channel, deliver)


def test_deliver_from_its_parts_is_pamqps() -> None:
    prefix, first, again = methods.deliver_prefix(1, "ctag1.0", "amq.topic", "stock.usd.é")
    tag = (2**40).to_bytes(8, "big")
    for redelivered, tail in ((False, first), (True, again)):
        deliver = Basic.Deliver("ctag1.0", 2**40, redelivered, "amq.topic", "stock.usd.é")
        assert prefix + tag + tail == frame.marshal(deliver, 1)


@given(CHANNELS, TAGS, st.booleans(), SHORTSTRS, st.integers(0, 2**32 - 1))
def test_get_ok(channel: int, tag: int, redelivered: bool, name: str, message_count: int) -> None:
    assert methods.get_ok_frame(
        channel,
        tag,
        redelivered=redelivered,
        exchange=name,
        routing_key=name + "k",
        message_count=message_count,
    ) == encode_method(
        channel, make(Basic.GetOk, tag, redelivered, name, name + "k", message_count)
    )


@given(CHANNELS, SHORTSTRS, SHORTSTRS)
def test_return(channel: int, exchange: str, routing_key: str) -> None:
    assert methods.return_frame(
        channel, ReplyCode.NO_ROUTE, "NO_ROUTE", exchange, routing_key
    ) == encode_method(channel, make(Basic.Return, 312, "NO_ROUTE", exchange, routing_key))
