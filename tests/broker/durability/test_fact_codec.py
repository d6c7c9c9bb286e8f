"""Facts into bytes and back, what cannot be read, and what people are shown."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.access.access import Permission, TopicPermission, User
from fluffle.broker.access.limits import UserLimits, VhostLimits, VhostSettings
from fluffle.broker.access.passwords import PasswordHash
from fluffle.broker.base.client_session import (
    INCOMING,
    OUTGOING,
    SENT,
    ClientSession,
    DueWill,
)
from fluffle.broker.base.message import RetainedMessage
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.durability.fact_codec import (
    SHAPE,
    FirstStart,
    decode,
    describe,
    encode,
    encode_key,
)
from fluffle.broker.metadata.change import Key, Kind
from fluffle.broker.metadata.nodes import RegisteredNode
from fluffle.broker.queues.arguments import Declaration, DeliveryGuarantee, queue_spec
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.routing.bindings import Binding, DestinationKind, binding_key
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.protocol.wire import Field, FieldTable, encode_table
from fluffle.storage.errors import Corrupt, StorageError

OCTETS = st.binary(max_size=8).map(lambda raw: raw.decode(errors="surrogateescape"))
"""Texts as they come from the wire."""
NAMES = OCTETS | st.just("\ud800")
"""And from JSON."""
FIELDS: st.SearchStrategy[Field] = st.one_of(
    st.tuples(st.just("t"), st.booleans()),
    st.tuples(st.sampled_from("bBsuIiLlT"), st.integers(0, 100)),
    st.tuples(st.just("d"), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("D"), st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1))),
    st.tuples(st.sampled_from("Sx"), st.binary(max_size=8)),
    st.tuples(st.just("V"), st.none()),
)
TABLES: st.SearchStrategy[FieldTable] = st.dictionaries(
    OCTETS,
    FIELDS
    | st.tuples(st.just("F"), st.dictionaries(OCTETS, FIELDS, max_size=3))
    | st.tuples(st.just("A"), st.lists(FIELDS, max_size=3)),
    max_size=4,
)
NUMBERS = st.integers(0, 2**64 - 1)
"""Numbers of boots and connections."""

LIMITS = st.none() | st.integers() | st.just(10**30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=3)
PASSWORDS = st.none() | st.builds(PasswordHash, st.text(), st.text())


def placed(definition: QueueDefinition) -> st.SearchStrategy[QueueDefinition]:
    """Definitions placed on nodes of a cluster."""
    return st.builds(
        definition._replace,
        id=st.integers(2, 2**63 - 1),
        home=NAMES,
        founders=st.lists(NAMES).map(tuple),
        members=st.lists(st.tuples(NAMES, st.integers(1, 2**32))).map(tuple),
        lives=st.lists(st.tuples(NAMES, st.integers(1, 2**32))).map(tuple),
        wanted=st.lists(NAMES).map(tuple),
        leader=NAMES,
        boot=NUMBERS,
    )


@st.composite
def client_facts(draw: st.DrawFn, kind: Kind, first: str, second: str) -> tuple[Kind, Key, object]:
    """Facts of the kinds that clients leave."""
    octets = st.binary(max_size=8)
    if kind is Kind.RETAINED:
        message = RetainedMessage(
            draw(octets), draw(octets), draw(NAMES), draw(NUMBERS), draw(NUMBERS)
        )
        return kind, (first, second), message
    if kind is Kind.CLIENT_SESSION:
        session = ClientSession(
            draw(NAMES), draw(NUMBERS), draw(NUMBERS), draw(NAMES), draw(octets), draw(NUMBERS)
        )
        return kind, (first, second), session
    if kind is Kind.CLIENT_WILL:
        return kind, (first, second, draw(NAMES)), DueWill(draw(NAMES), draw(octets))
    way = draw(st.sampled_from([INCOMING, OUTGOING, SENT]))
    page = st.dictionaries(st.integers(65_472, 65_535), st.none() | NUMBERS)
    return kind, (first, second, way, "1023"), draw(page)


@st.composite
def facts(draw: st.DrawFn) -> tuple[Kind, Key, object]:
    """Facts of any kind under a name that fits them."""
    kind = draw(st.sampled_from(Kind))
    first, second, third = draw(NAMES), draw(NAMES), draw(NAMES)
    match kind:
        case Kind.STARTED:
            names = st.lists(st.text(), max_size=2).map(tuple)
            return kind, (), FirstStart(draw(names), draw(names))
        case Kind.DOOMED:
            return kind, (first,), None
        case Kind.USER:
            tags = tuple(draw(st.lists(st.text(), max_size=2)))
            user = User(first, draw(PASSWORDS), tags, UserLimits(draw(LIMITS), draw(LIMITS)))
            return kind, (first,), user
        case Kind.VHOST:
            limits = VhostLimits(draw(LIMITS), draw(LIMITS))
            return kind, (first,), VhostSettings(limits, draw(OBJECTS))
        case Kind.PERMISSION:
            return kind, (first, second), Permission(first, second, third)
        case Kind.TOPIC_PERMISSION:
            return kind, (first, second, third), TopicPermission(first, second)
        case Kind.EXCHANGE:
            exchange = ExchangeSpec(
                second,
                draw(st.sampled_from(["direct", "fanout", "topic", "headers"])),
                durable=draw(st.booleans()),
                auto_delete=draw(st.booleans()),
                internal=draw(st.booleans()),
                arguments=draw(TABLES),
            )
            return kind, (first, second), exchange
        case Kind.QUEUE:
            owner = draw(st.none() | st.builds(Owner, NAMES, NUMBERS, NUMBERS, NAMES))
            declared = Declaration(
                second,
                durable=draw(st.booleans()),
                exclusive=owner is not None,
                auto_delete=draw(st.booleans()),
                arguments=draw(TABLES),
                mailbox_limit=draw(st.sampled_from([None, 0, 200])),
                guarantee=draw(st.sampled_from(DeliveryGuarantee)),
            )
            spec = queue_spec(declared, first)
            definition = QueueDefinition(spec, (3, 2**63), owner)
            successor = QueueDefinition(queue_spec(Declaration(second, durable=True), first))
            definition = definition._replace(successor=draw(st.none() | placed(successor)))
            return kind, (first, second), draw(st.just(definition) | placed(definition))
        case Kind.RETAINED | Kind.CLIENT_SESSION | Kind.CLIENT_PACKETS | Kind.CLIENT_WILL:
            return draw(client_facts(kind, first, second))
        case Kind.NODE:
            address = ListenAddress(draw(st.text()), draw(st.integers(0, 65_535)))
            numbers = draw(NUMBERS), draw(st.binary(max_size=16)), draw(NUMBERS), draw(NUMBERS)
            return kind, (first,), RegisteredNode(address, *numbers)
        case Kind.BINDING:
            where = draw(st.sampled_from(DestinationKind))
            binding = Binding(second, third, where, first, draw(TABLES))
            return kind, binding_key(first, binding), binding
    return kind, (first, second), draw(OBJECTS)


@given(facts())
def test_a_fact_comes_back_as_it_was(fact: tuple[Kind, Key, object]) -> None:
    kind, key, value = fact
    found_key, found = decode(kind, encode_key(key), encode(kind, value))
    assert (found_key, found) == (key, value)
    arguments = getattr(found, "arguments", {})
    assert list(arguments) == list(getattr(value, "arguments", {}))


@pytest.mark.parametrize(
    ("name", "guarantee"),
    [
        ("mqtt-subscription-cqos0", DeliveryGuarantee.AT_MOST_ONCE),
        ("mqtt-subscription-cqos1", DeliveryGuarantee.EXACTLY_ONCE),
        ("mqtt-shared-g", DeliveryGuarantee.EXACTLY_ONCE),
        ("orders.qos0", DeliveryGuarantee.AT_LEAST_ONCE),
    ],
)
def test_a_queue_that_was_written_without_a_guarantee_has_that_of_its_name(
    name: str, guarantee: DeliveryGuarantee
) -> None:
    old = fields(auto_delete=False, arguments=encode_table({}), groups=[])
    _key, queue = decode(Kind.QUEUE, encode_key(("v", name)), old)
    assert isinstance(queue, QueueDefinition)
    assert queue.spec.guarantee is guarantee
    assert encode(Kind.QUEUE, queue) == old, "so that an older version of the broker reads it"


@given(facts(), st.integers(1, 20), st.binary(max_size=8))
def test_whatever_the_bytes_they_are_read_or_refused(
    fact: tuple[Kind, Key, object], keep: int, rest: bytes
) -> None:
    """The checksum was right, so somebody wrote this: no other error may hide that."""
    kind, key, value = fact
    damaged = encode(kind, value)[:keep] + rest
    with contextlib.suppress(Corrupt):
        decode(kind, encode_key(key), damaged)


def fields(**values: object) -> bytes:
    packed: bytes = msgpack.packb(values)
    return bytes((SHAPE,)) + packed


NAME = encode_key(("v", "orders"))


@pytest.mark.parametrize(
    ("kind", "name", "value", "where", "what"),
    [
        (Kind.QUEUE, NAME, b"", "catalog queue 'v' 'orders'", "cannot be read"),
        (Kind.QUEUE, NAME, fields(), "catalog queue 'v' 'orders'", "KeyError"),
        (Kind.QUEUE, NAME, bytes((SHAPE, 0)), "catalog queue 'v' 'orders'", "AttributeError"),
        (Kind.QUEUE, b"\xc1", fields(), r"catalog queue b'\\xc1'", "the name cannot be read"),
        (
            Kind.EXCHANGE,
            NAME,
            fields(type="x-later", auto_delete=False, internal=False, arguments=bytes(4)),
            "catalog exchange 'v' 'orders'",
            "unknown exchange type 'x-later'",
        ),
        (
            Kind.QUEUE,
            NAME,
            fields(auto_delete=False, arguments=bytes(5), groups=[1, 2]),
            "catalog queue 'v' 'orders'",
            "1 bytes behind a table",
        ),
    ],
)
def test_what_cannot_be_read_is_named(
    kind: Kind, name: bytes, value: bytes, where: str, what: str
) -> None:
    with pytest.raises(Corrupt, match=f"^corrupt: {where}: .*{what}"):
        decode(kind, name, value)


def test_a_later_shape_is_refused() -> None:
    later = bytes((SHAPE + 1,)) + b"anything"
    expected = "catalog queue 'v' 'orders' has shape 2; this version reads shapes up to 1"
    with pytest.raises(StorageError, match=expected):
        decode(Kind.QUEUE, NAME, later)


SHOWN: list[tuple[Kind, Key, Any, str]] = [
    (Kind.STARTED, (), FirstStart(("u",)), "users=['u'] vhosts=[]"),
    (
        Kind.USER,
        ("u",),
        User("u", PasswordHash("secret"), ("administrator",)),
        "'u' tags=['administrator'] password_algorithm='rabbit_password_hashing_sha256' "
        "password_hash=... max_connections=None max_channels=None",
    ),
    (
        Kind.QUEUE,
        ("v", "q"),
        QueueDefinition(
            queue_spec(Declaration("q", durable=True, arguments={"a": ("s", 1)}), "v"), (1, 2)
        ),
        "'v' 'q' auto_delete=False arguments={'a': ('s', 1)} groups=[1, 2]",
    ),
    (
        Kind.BINDING,
        binding_key("v", Binding("s", "q", DestinationKind.QUEUE, "k", {"a": ("s", 1)})),
        Binding("s", "q", DestinationKind.QUEUE, "k", {"a": ("s", 1)}),
        "'v' 's' 'queue' 'q' 'k' arguments={'a': ('s', 1)}",
    ),
    (Kind.RETAINED, ("v", "t"), RetainedMessage(b"secret", b"", "u", 1, 2), "'v' 't' 6 bytes"),
    (
        Kind.CLIENT_SESSION,
        ("v", "c"),
        ClientSession("u", 60, 0, "node", b"secret"),
        "'v' 'c' user='u' expiry_s=60 node='node'",
    ),
    (Kind.POLICY, ("v", "p"), {"pattern": "^x"}, """'v' 'p' {"pattern": "^x"}"""),
]


@pytest.mark.parametrize(("kind", "key", "value", "shown"), SHOWN, ids=str)
def test_definitions_are_shown_without_secrets(
    kind: Kind, key: Key, value: object, shown: str
) -> None:
    assert describe(kind, encode_key(key), encode(kind, value)) == shown


def test_other_kinds_are_not_described() -> None:
    assert describe("seen", b"\0", b"\0") is None
