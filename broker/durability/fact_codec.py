"""Facts as bytes: names, and a value of each kind; and the image that is read from them.

    name     msgpack: an array of the parts
    value    shape:1  msgpack: a map, mostly

Field tables are in the form of the wire, because type tags must survive; what came as JSON stays
JSON.  Whatever is found in a name is not repeated in the value.  A field that is added later is
missing from what was written before: `decode` says what it was then.

The image of a node's stored definitions has plain values, from which its parts are built.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import NoneType
from typing import Any, NamedTuple

import msgpack

from fluffle.broker.access.access import AccessTables, Permission, TopicPermission, User
from fluffle.broker.access.limits import UserLimits, VhostLimits, VhostSettings
from fluffle.broker.access.passwords import PasswordHash
from fluffle.broker.base.client_session import (
    ClientSession,
    DueWill,
    PacketPage,
    PageName,
    WillName,
)
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.message import RetainedMessage
from fluffle.broker.base.queue_names import QUEUE_ENDINGS, SUBSCRIPTION_PREFIX
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.metadata.change import Entry, Fact, Key, Kind
from fluffle.broker.metadata.nodes import RegisteredNode
from fluffle.broker.queues.arguments import Declaration, DeliveryGuarantee, QueueType, queue_spec
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import EXCHANGE_TYPES, ExchangeSpec
from fluffle.protocol.spec import ProtocolError
from fluffle.protocol.wire import FieldTable, encode_table, read_table
from fluffle.storage.errors import Corrupt, StorageError

KEPT: Mapping[Kind, tuple[str, ...]] = {
    Kind.POLICY: ("vhost", "name"),
    Kind.PARAMETER: ("vhost", "component", "name"),
    Kind.GLOBAL_PARAMETER: ("name",),
}
"""Kinds of stored entries that have no effect here, with the fields of their names."""


class FirstStart(NamedTuple):
    """Users and virtual hosts made at the first start; they may be deleted since."""

    users: tuple[str, ...] = ()
    vhosts: tuple[str, ...] = ()


@dataclass(slots=True)
class VhostImage:
    """Stored definitions of one virtual host.

    Both ends of every binding are there.
    """

    settings: VhostSettings = field(default_factory=VhostSettings)
    exchanges: list[ExchangeSpec] = field(default_factory=list)
    queues: list[QueueDefinition] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)
    retained: dict[str, RetainedMessage] = field(default_factory=dict)
    """Retained messages by topic."""
    client_sessions: dict[str, ClientSession] = field(default_factory=dict)
    """Sessions by client, as are the packets below."""
    client_packets: dict[str, dict[PageName, PacketPage]] = field(default_factory=dict)
    due_wills: dict[WillName, DueWill] = field(default_factory=dict)


@dataclass(slots=True)
class DefinitionImage:
    """Stored definitions of the whole node."""

    first_start: FirstStart | None = None
    """None if there was none yet."""
    tables: AccessTables = field(default_factory=AccessTables)
    vhosts: dict[str, VhostImage] = field(default_factory=dict)
    doomed: list[str] = field(default_factory=list)
    """Virtual hosts whose deletion had begun."""
    kept: dict[Kind, dict[Key, Entry]] = field(default_factory=lambda: {kind: {} for kind in KEPT})


SHAPE = 1
"""Version: raised when the meaning of a value changes; the old one is still read."""

TEXT_ERRORS = "surrogatepass"
"""Names may hold octets that are not UTF-8, as surrogates."""

UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    BrokerError,
    ProtocolError,
    RecursionError,
    AttributeError,
)
"""Errors of damaged values: all that msgpack raises is a ValueError."""

NUMBER_MAX = 2**63 - 1

SHARED_BYTES_MAX = 256
"""Field tables up to here are kept to be shared, a thousand of them."""

Fields = dict[str, Any]


class Codec(NamedTuple):
    """How the values of one kind are written and read."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any, Any], Any]
    """(the parts of the name, what was encoded) -> the value"""


def encode_key(key: Key) -> bytes:
    return _packed(key)


def encode_keys(facts: Iterable[Fact]) -> Iterator[bytes]:
    """Yield the keys of facts, in whatever thread asks for them."""
    pack = msgpack.Packer(unicode_errors=TEXT_ERRORS).pack
    return (pack(fact.key) for fact in facts)


def encode(kind: Kind, value: object) -> bytes:
    return bytes((SHAPE,)) + _packed(CODECS[kind].encode(value))


def decode(kind: Kind, name: bytes, value: bytes) -> tuple[Key, Any]:
    """Decode the parts of the name, and the value.

    Raises `Corrupt` for what was never written, `StorageError` for what a later version wrote.
    """
    key = _read_key(kind, name)
    return key, decode_value(kind, key, value)


def decode_value(kind: Kind, key: Key, value: bytes) -> Any:
    """Decode the value under a name.  Raises as `decode` does."""
    fields = _read_fields(kind, key, value)
    try:
        return CODECS[kind].decode(key, fields)
    except UNREADABLE as error:
        raise _corrupt(kind, key, error) from error


def describe(kind: str, name: bytes, value: bytes) -> str | None:
    """Return a definition for people, passwords left out; None for a kind that is none of these.

    Raises as `decode` does.
    """
    if kind not in list(Kind):
        return None
    known = Kind(kind)
    key, _ = decode(known, name, value)
    fields = _read_fields(known, key, value)
    return f"{_shown(key)} {_shown_value(known, fields)}".strip()


def _read_key(kind: Kind, name: bytes) -> Key:
    try:
        return tuple(_read(name))
    except UNREADABLE as error:
        raise Corrupt(f"catalog {kind} {name!r}", f"the name cannot be read: {error}") from error


def _read_fields(kind: Kind, key: Key, value: bytes) -> Any:
    if value[:1] > bytes((SHAPE,)):
        raise StorageError(
            f"catalog {kind} {_shown(key)} has shape {value[0]}; this version reads shapes up to "
            f"{SHAPE}. Use the version that wrote it, or a later one; nothing has been changed"
        )
    try:
        return _read(value[1:])
    except UNREADABLE as error:
        raise _corrupt(kind, key, error) from error


_packed: Callable[[object], bytes] = msgpack.Packer(unicode_errors=TEXT_ERRORS).pack
"""Takes half the time that `packb` does, which makes a packer each time."""


def _read(packed: bytes) -> Any:
    return msgpack.unpackb(packed, unicode_errors=TEXT_ERRORS)


def _corrupt(kind: Kind, key: Key, error: Exception) -> Corrupt:
    return Corrupt(f"catalog {kind} {_shown(key)}", f"it cannot be read: {error!r}")


def _shown(key: Key) -> str:
    """Return the parts of a name; the arguments of a binding are in its value too."""
    return " ".join(repr(part) for part in key if isinstance(part, str))


def _shown_value(kind: Kind, fields: Any) -> str:
    if kind is Kind.RETAINED:
        return f"{len(fields[0])} bytes"
    if kind is Kind.CLIENT_SESSION:
        user, expiry_s, _ended_at_ms, node, *_ = fields
        return f"user={user!r} expiry_s={expiry_s} node={node!r}"
    if not isinstance(fields, dict):
        return "" if fields is None else str(fields)
    return " ".join(f"{name}={_shown_field(name, value)}" for name, value in fields.items())


def _shown_field(name: str, value: Any) -> str:
    if name == "arguments":
        return repr(_table(value))
    return "..." if name == "password_hash" else repr(value)


def _table(encoded: bytes) -> FieldTable:
    """Decode a table that must not be changed: one object for all short ones that are equal."""
    return _short_table(encoded) if len(encoded) <= SHARED_BYTES_MAX else _any_table(encoded)


@lru_cache(maxsize=1024)
def _short_table(encoded: bytes) -> FieldTable:
    return _any_table(encoded)


def _any_table(encoded: bytes) -> FieldTable:
    table, end = read_table(encoded, 0)
    if end != len(encoded):
        raise ValueError(f"{len(encoded) - end} bytes behind a table")
    return table


# One kind after the other


def _encode_limit(limit: int | None) -> int | str | None:
    """msgpack has 64 bits for a number, RabbitMQ no end."""
    return limit if limit is None or abs(limit) <= NUMBER_MAX else str(limit)


def _decode_limit(stored: int | str | None) -> int | None:
    return None if stored is None else int(stored)


def _decode_first_start(_key: tuple[()], fields: Fields | None) -> FirstStart:
    """Earlier versions did not say what it made."""
    if fields is None:
        return FirstStart()
    return FirstStart(tuple(fields["users"]), tuple(fields["vhosts"]))


def _encode_user(user: User) -> Fields:
    password = user.password
    return {
        "tags": user.tags,
        "password_algorithm": password and password.algorithm,
        "password_hash": password and password.hash,
        "max_connections": _encode_limit(user.limits.max_connections),
        "max_channels": _encode_limit(user.limits.max_channels),
    }


def _decode_user(key: tuple[str], fields: Fields) -> User:
    stored = fields["password_hash"]
    return User(
        *key,
        password=None if stored is None else PasswordHash(stored, fields["password_algorithm"]),
        tags=tuple(fields["tags"]),
        limits=UserLimits(
            _decode_limit(fields["max_connections"]), _decode_limit(fields["max_channels"])
        ),
    )


def _encode_vhost(settings: VhostSettings) -> Fields:
    return {
        "max_connections": _encode_limit(settings.limits.max_connections),
        "max_queues": _encode_limit(settings.limits.max_queues),
        "metadata": json.dumps(dict(settings.metadata)),
    }


def _decode_vhost(_key: tuple[str], fields: Fields) -> VhostSettings:
    limits = VhostLimits(
        _decode_limit(fields["max_connections"]), _decode_limit(fields["max_queues"])
    )
    return VhostSettings(limits, json.loads(fields["metadata"]))


def _encode_permission(permission: Permission) -> Fields:
    return {name: getattr(permission, name) for name in ("configure", "write", "read")}


def _encode_topic_permission(permission: TopicPermission) -> Fields:
    return {name: getattr(permission, name) for name in ("write", "read")}


def _encode_exchange(spec: ExchangeSpec) -> Fields:
    """Encode an exchange; transient ones are known to clusters alone."""
    fields = {
        "type": spec.type,
        "auto_delete": spec.auto_delete,
        "internal": spec.internal,
        "arguments": encode_table(spec.arguments),
    }
    return fields if spec.durable else fields | {"durable": False}


def _decode_exchange(key: tuple[str, str], fields: Fields) -> ExchangeSpec:
    if fields["type"] not in EXCHANGE_TYPES:
        raise ValueError(f"unknown exchange type '{fields['type']}'")
    return ExchangeSpec(
        key[1],
        fields["type"],
        durable=fields.get("durable", True),
        auto_delete=fields["auto_delete"],
        internal=fields["internal"],
        arguments=_table(fields["arguments"]),
    )


def _named(names: Any) -> tuple[str, ...]:
    return _one_of_names(*map(str, names))


def _numbered(rows: Any) -> tuple[tuple[str, int], ...]:
    return _one_of_rows(*((str(name), int(number)) for name, number in rows))


@lru_cache(maxsize=1024)
def _one_of_names(*names: str) -> tuple[str, ...]:
    """Return one object for all lists of names that are equal: thousands of queues are on the same
    nodes."""
    return names


@lru_cache(maxsize=1024)
def _one_of_rows(*rows: tuple[str, int]) -> tuple[tuple[str, int], ...]:
    """Return one object for all rows that are equal."""
    return rows


PLACED = ("id", "home", "founders", "members", "lives", "wanted", "leader", "boot")
"""Where in a cluster a queue lives; a lone node says nothing of it."""


def guarantee_by_name(queue: str) -> DeliveryGuarantee:
    """Return the guarantee of a queue for which none was written: queues of MQTT's sessions and
    groups have names of their own, and had no other mark in what was written before, nor have they
    in what RabbitMQ exports."""
    if not queue.startswith("mqtt-"):
        return DeliveryGuarantee.AT_LEAST_ONCE
    is_qos_0 = queue.startswith(SUBSCRIPTION_PREFIX) and queue.endswith(QUEUE_ENDINGS[0])
    return DeliveryGuarantee.AT_MOST_ONCE if is_qos_0 else DeliveryGuarantee.EXACTLY_ONCE


def _encode_queue(queue: QueueDefinition) -> Fields:
    """Encode a queue; the rest of its specification follows from the arguments."""
    fields = {
        "auto_delete": queue.spec.auto_delete,
        "arguments": encode_table(queue.spec.arguments),
        "groups": queue.groups,
    }
    if not queue.spec.durable:
        fields["durable"] = False
    if queue.spec.exclusive:
        fields["owner"] = queue.owner
    if queue.spec.queue_type is QueueType.MQTT_QOS0:
        fields["mailbox_limit"] = queue.spec.mailbox_limit
    if queue.spec.guarantee is not guarantee_by_name(queue.spec.name):
        fields["guarantee"] = queue.spec.guarantee.value
    if queue.id:
        fields |= {name: getattr(queue, name) for name in PLACED}
    if queue.successor is not None:
        fields["successor"] = _encode_queue(queue.successor)
    return fields


def _decode_queue(key: tuple[str, str], fields: Fields) -> QueueDefinition:
    vhost, name = key
    declared = Declaration(
        name,
        durable=fields.get("durable", True),
        exclusive="owner" in fields,
        auto_delete=fields["auto_delete"],
        arguments=_table(fields["arguments"]),
        mailbox_limit=fields.get("mailbox_limit"),
        guarantee=DeliveryGuarantee(fields.get("guarantee", guarantee_by_name(name))),
    )
    owner = Owner(*fields["owner"]) if declared.exclusive else None
    successor = _decode_queue(key, fields["successor"]) if "successor" in fields else None
    definition = QueueDefinition(
        queue_spec(declared, vhost), tuple(fields["groups"]), owner, successor=successor
    )
    if "id" not in fields:
        return definition
    return definition._replace(
        id=int(fields["id"]),
        home=str(fields["home"]),
        founders=_named(fields["founders"]),
        members=_numbered(fields["members"]),
        lives=_numbered(fields["lives"]),
        wanted=_named(fields["wanted"]),
        leader=str(fields["leader"]),
        boot=int(fields["boot"]),
    )


def _encode_binding(binding: Binding) -> Fields:
    """Encode a binding; its name has the arguments too, in an order that is the same for all that
    are equal."""
    return {"arguments": encode_table(binding.arguments)}


def _decode_binding(key: tuple[str, str, str, str, str, bytes], fields: Fields) -> Binding:
    _vhost, source, kind, destination, routing_key, _ = key
    return Binding(
        source, destination, DestinationKind(kind), routing_key, _table(fields["arguments"])
    )


def _encode_node(node: RegisteredNode) -> Fields:
    return {
        "host": node.address.host,
        "port": node.address.port,
        "boot": node.boot,
        "nonce": node.nonce,
        "id": node.id,
        "knows": node.knows,
    }


def _decode_node(_key: tuple[str], fields: Fields) -> RegisteredNode:
    address = ListenAddress(fields["host"], fields["port"])
    knows = fields.get("knows", 0)
    return RegisteredNode(address, fields["boot"], fields["nonce"], fields["id"], knows)


def _decode_retained(_key: tuple[str, str], fields: list[Any]) -> RetainedMessage:
    content, annotations, user, stored_at_ms, expires_at_ms = fields
    if type(content) is not bytes or type(annotations) is not bytes:
        raise TypeError("the content of a message is bytes")
    return RetainedMessage(content, annotations, str(user), int(stored_at_ms), int(expires_at_ms))


def _decode_client_session(_key: tuple[str, str], fields: list[Any]) -> ClientSession:
    user, expiry_s, ended_at_ms, node, record, *number = fields
    if type(record) is not bytes:
        raise TypeError("the record of a session is bytes")
    return ClientSession(
        str(user), int(expiry_s), int(ended_at_ms), str(node), record, *map(int, number)
    )


def _decode_due_will(_key: Key, fields: list[Any]) -> DueWill:
    node, record = fields
    if type(record) is not bytes:
        raise TypeError("the record of a will is bytes")
    return DueWill(str(node), record)


def _encode_client_packets(page: PacketPage) -> list[object]:
    return [list(page), list(page.values())]


def _decode_client_packets(_key: Key, fields: list[Any]) -> PacketPage:
    numbers, messages = fields
    if not {*map(type, numbers), *map(type, messages)} <= {int, NoneType}:
        raise TypeError("packets have numbers")
    return dict(zip(numbers, messages, strict=True))


def _json_object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("this is no object")
    return found


_KEPT = Codec(json.dumps, lambda _key, text: _json_object(text))

CODECS: Mapping[Kind, Codec] = {
    Kind.STARTED: Codec(FirstStart._asdict, _decode_first_start),
    Kind.USER: Codec(_encode_user, _decode_user),
    Kind.VHOST: Codec(_encode_vhost, _decode_vhost),
    Kind.DOOMED: Codec(lambda _: None, lambda _key, _: None),
    Kind.PERMISSION: Codec(_encode_permission, lambda _key, fields: Permission(**fields)),
    Kind.TOPIC_PERMISSION: Codec(
        _encode_topic_permission, lambda _key, fields: TopicPermission(**fields)
    ),
    Kind.EXCHANGE: Codec(_encode_exchange, _decode_exchange),
    Kind.QUEUE: Codec(_encode_queue, _decode_queue),
    Kind.BINDING: Codec(_encode_binding, _decode_binding),
    Kind.POLICY: _KEPT,
    Kind.PARAMETER: _KEPT,
    Kind.GLOBAL_PARAMETER: _KEPT,
    Kind.RETAINED: Codec(tuple, _decode_retained),
    Kind.CLIENT_SESSION: Codec(tuple, _decode_client_session),
    Kind.CLIENT_PACKETS: Codec(_encode_client_packets, _decode_client_packets),
    Kind.CLIENT_WILL: Codec(tuple, _decode_due_will),
    Kind.NODE: Codec(_encode_node, _decode_node),
}
