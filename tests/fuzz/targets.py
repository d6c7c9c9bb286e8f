"""Each thing that reads bytes from outside, and what must hold whatever it is given.

A target takes bytes and returns, or raises what is a bug: an exception that nobody expects, or a
broken promise.  Seeds are good input to begin with.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from fluffle.broker.access.access import Access, Permission
from fluffle.broker.access.limits import VhostLimits, VhostSettings
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.links.chunks import HEARTBEAT_CHUNK, ChunkDecoder, OutgoingFrame
from fluffle.broker.cluster.links.handshake import LinkCredentials, LinkHandshake
from fluffle.broker.cluster.links.identity import Boot, Boots, Identity, LinkRefused, PeerBoots
from fluffle.broker.cluster.ports import FrameKind
from fluffle.broker.cluster.queue_sessions.codec import decode as decode_frame
from fluffle.broker.cluster.queue_sessions.codec import encode as encode_frame
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.file_format import DefinitionsError, read
from fluffle.broker.definitions.importer import import_definitions
from fluffle.broker.durability.change_codec import (
    InvalidEncoding,
    decode_proposals,
    decode_state,
    encode_proposals,
    encode_state,
)
from fluffle.broker.durability.fact_codec import decode as decode_fact
from fluffle.broker.durability.fact_codec import encode as encode_fact
from fluffle.broker.durability.fact_codec import encode_key
from fluffle.broker.durability.local_journal import decode_messages, encode_messages
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.change import Change, CountLimit, Fact, Kind
from fluffle.broker.metadata.metadata import LocalMetadata
from fluffle.broker.metadata.state import MetadataState, Proposal
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import decode as decode_entry
from fluffle.broker.queues.quorum.entry_codec import encode as encode_entry
from fluffle.broker.queues.quorum.entry_codec import read_messages
from fluffle.broker.queues.quorum.facts import InvalidEntry
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.jms_topic import selector_matcher
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol import wire
from fluffle.protocol.methods import decode_method, encode_method
from fluffle.protocol.properties import (
    FLAG_HEADERS,
    Properties,
    check_properties,
    decode_properties,
    encode_properties,
    outline,
    property_flags,
)
from fluffle.protocol.proxy import ProxyError, bytes_missing, parse
from fluffle.protocol.reader import Event, MessageStarted, MethodReceived, Violation
from fluffle.protocol.spec import ProtocolError
from fluffle.storage.errors import Corrupt, StorageError
from fluffle.storage.layout import Deletion, Packer, Record, Row, cut
from tests.broker.queues.quorum.history import OPERATIONS, History
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.sample_facts import busy
from tests.broker.routing.topologies import matches_of
from tests.fuzz.connections import GREETING, talk
from tests.fuzz.mqtt_reader import mqtt_reader, mqtt_seeds
from tests.protocol.client_frames import MESSAGE_BYTES_MAX, UNFINISHED_BYTES_MAX
from tests.protocol.sample_session import merged, sample_session, session_reader
from tests.support.definition_digest import digest_of
from tests.support.definitions import NoFacts
from tests.support.payloads import joined
from tests.support.queue_host import FakeTurn

HELD_BYTES_MAX = UNFINISHED_BYTES_MAX + MESSAGE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Target:
    """Function to fuzz, with its seeds."""

    run: Callable[[bytes], object]
    seeds: Sequence[bytes]


def read_all(pieces: Sequence[bytes]) -> list[Event]:
    """Events of a reader for bytes that come in pieces."""
    reader = session_reader()
    events: list[Event] = []
    for octets in pieces:
        events += reader.feed(octets)
        while reader.is_waiting:
            events += reader.go_on()
        held = sum(assembly.held_bytes for assembly in reader._assemblies.values())
        assert held <= HELD_BYTES_MAX, "more is kept than may be"
    violations = [at for at, event in enumerate(events) if isinstance(event, Violation)]
    assert violations in ([], [len(events) - 1]), "a reader goes on behind a violation"
    return events


def comparable(events: Sequence[Event]) -> list[object]:
    """Events without what depends on how bytes were cut; errors compare by what they say."""
    return [
        (event.channel, str(event.error)) if isinstance(event, Violation) else event
        for event in merged(event for event in events if not isinstance(event, MessageStarted))
    ]


def reader(data: bytes) -> None:
    """Events or one violation; the same however it is cut; what is decoded can be encoded.

    The first bytes say where to cut.
    """
    cuts, sent = data[:3], data[3:]
    places = sorted(place * (len(sent) + 1) // 256 for place in cuts)
    pieces = [sent[start:stop] for start, stop in pairwise([0, *places, len(sent)])]
    whole = read_all([sent])
    assert comparable(read_all(pieces)) == comparable(whole)
    for event in whole:
        if isinstance(event, MethodReceived):
            method(event.payload)


def method(payload: bytes) -> None:
    """A method or a refusal; encoded again it is the same method."""
    try:
        decoded = decode_method(payload)
    except ProtocolError:
        return
    again = encode_method(1, decoded)
    assert dict(decode_method(again[7:-1])) == dict(decoded)


def table(raw: bytes) -> None:
    """A table or a refusal; encoded again it is the same table."""
    try:
        decoded = wire.read_fields(raw, 0, len(raw))
    except ProtocolError:
        return
    encoded = wire.encode_table(decoded)
    assert wire.read_table(encoded, 0) == (decoded, len(encoded))


def properties(raw: bytes) -> None:
    """Encoded again they are the same; all roads agree on what can be read."""
    try:
        decoded = decode_properties(raw)
    except ProtocolError:
        is_good = False
    else:
        is_good = True
        assert decode_properties(encode_properties(decoded)) == decoded
    if property_flags(raw) & FLAG_HEADERS:
        return
    try:
        check_properties(raw)
    except ProtocolError:
        assert not is_good
        return
    assert is_good
    alike = bytearray(raw)
    for start, stop in outline(raw)[1]:
        alike[start:stop] = b"x" * (stop - start)
    check_properties(bytes(alike))


def selector(text: bytes) -> None:
    """A JMS selector is refused with a sentence, or says of any headers whether they match."""
    matcher = selector_matcher()
    binding = Binding("x", "q", DestinationKind.QUEUE, "", {"rjms_erlang_selector": ("S", text)})
    try:
        matcher.check(binding)
    except PreconditionFailed:
        return
    matcher.add(binding)
    for headers in ({}, wire.to_table(TABLE), wire.to_table({"s": "blue", "n": 5})):
        assert len([*matches_of(matcher, ["k"], Properties(headers=headers))]) in (0, 1)


def proxy(data: bytes) -> None:
    """A header is taken to the byte, or refused; it never asks for more than there may be."""
    have = b""
    try:
        while missing := bytes_missing(have):
            if len(have) + missing > len(data):
                return
            have += data[len(have) : len(have) + missing]
        parse(have)
    except ProxyError:
        return


def definitions(data: bytes) -> None:
    """Definitions are refused with a sentence, or imported; what cannot be is named."""
    catalogue = Catalogue(
        Access(),
        vhosts={},
        make_vhost=lambda name: VirtualHost(name, LocalQueues(FakeTurn())),
    )
    try:
        content = read(data.decode(errors="surrogateescape"))
    except DefinitionsError:
        return
    metadata = LocalMetadata(catalogue.apply, NoFacts())
    try:
        skipped = asyncio.run(import_definitions(content, catalogue, metadata))
    except DefinitionsError:
        return
    assert all(skipped)


def fact(data: bytes) -> None:
    """Read or refuse a definition as it is on disk; the first byte gives its kind."""
    kinds = list(Kind)
    if not data:
        return
    kind, split = kinds[data[0] % len(kinds)], data[1] if len(data) > 1 else 0
    name, value = data[2 : 2 + split], data[2 + split :]
    try:
        key, decoded = decode_fact(kind, name, value)
    except StorageError:
        return
    assert decode_fact(kind, encode_key(key), encode_fact(kind, decoded)) == (key, decoded)


def changes(data: bytes) -> None:
    """Read or refuse a node's proposals of definitions; the first byte gives their form."""
    try:
        if data[:1] == b"s":
            state = decode_state(data[1:], MetadataState())
            again = decode_state(b"".join(encode_state(state)), MetadataState())
            assert digest_of(again) == digest_of(state)
        else:
            proposals = decode_proposals(data[1:])
            assert decode_proposals(encode_proposals(proposals)) == proposals
    except InvalidEncoding:
        return


def change_seeds() -> list[bytes]:
    """A proposal with something of everything, and the state it leads to."""
    state = MetadataState()
    vhost = Fact(Kind.VHOST, ("v",), VhostSettings())
    user = Fact(Kind.PERMISSION, ("u", "v"), Permission(".*", "", ""))
    room = (CountLimit(Kind.QUEUE, "v", 3),)
    change = Change((user,), (vhost, user), ((Kind.USER, ("u",)),), room)
    proposal = Proposal("a", 1, 1, 1, change, (0,))
    state.apply(proposal._replace(change=Change(puts=(vhost,))))
    return [b"p" + encode_proposals([proposal]), b"s" + b"".join(encode_state(state))]


def record(data: bytes) -> None:
    """A record of a store is read or refused."""
    try:
        found = Record(int.from_bytes(data[:8]), data)
        found.check()
        for row in found.changes():
            if isinstance(row, Row):
                found.piece(row)
    except Corrupt:
        return


def messages(data: bytes) -> None:
    """An entry of a queue's log is read or refused; encoded again it is the same."""
    try:
        origins, contents, expiries = decode_messages(data)
    except StorageError:
        return
    assert len(origins) == len(contents)
    again = decode_messages(encode_messages(origins, contents, expiries))
    assert list(map(repr, again.origins)) == list(map(repr, origins))
    assert again[1:] == (contents, expiries)


def entry(data: bytes) -> None:
    """An entry of a quorum queue's log fits or is refused; encoded again it says the same."""
    try:
        batch = decode_entry(data)
        again = decode_entry(encode_entry(batch, batch.version))
        assert (again.facts, again.stamp_ms) == (batch.facts, batch.stamp_ms)
        read_messages(data)
        QueueImage().apply(1, data)
    except InvalidEntry:
        return


def image(data: bytes) -> None:
    """A snapshot of a quorum queue is restored or refused; one of that says the same."""
    try:
        restored = restored_image(data)
    except InvalidEntry:
        return
    assert image_digest(restored_image(take_snapshot(restored)[1])) == image_digest(restored)


def stream(data: bytes) -> None:
    """A frame between an edge and a leader is read or refused; encoded again it says the same."""
    try:
        frame = decode_frame(data)
    except BadFrame:
        return
    assert repr(decode_frame(joined(encode_frame(frame)))) == repr(frame)


def stream_seeds() -> list[bytes]:
    boots, origins = (m.SessionBoot(1, 2), m.SessionBoot(3, 4)), [Origin("x", "key")] * 2
    tokens = [m.Token(2, 0, range(1, 9, 2))]
    delivers = [m.Deliver(2, 0, 0, False, [range(1, 3)], origins, [b"a", b""])]
    asked: list[m.FromClient] = [
        m.Open(1),
        m.Publish(1, origins, [b"a", b""], True),
        m.Settle(3, Outcome.ACKED, tokens),
    ]
    replies: list[m.FromLeader] = [
        m.SessionRecord(3, [2], [(4, 1)], tokens),
        m.DoneReply(1, 2),
        m.GetAnswer(9, 4, 1, delivers),
    ]
    return [
        joined(encode_frame(m.ClientFrame(7, 1, 1, *boots, 1, 1, 0, 1, asked))),
        joined(encode_frame(m.LeaderFrame(7, 1, 1, *boots, 1, 1, 1, replies))),
    ]


def entry_seeds() -> list[bytes]:
    history, chance = History(), Random(1)
    seeds = []
    for _ in range(8):
        for operation in (History.open_session, History.attach, *OPERATIONS):
            operation(history, chance)
        seeds.append(history.entry())
    return seeds


def image_seed() -> bytes:
    return take_snapshot(busy())[1]


def link_hello(data: bytes) -> None:
    """A stranger is answered or refused, and is never let in."""
    end = stranger_at("b", None)
    try:
        end.feed(data)
    except LinkRefused:
        return
    assert end.peer is None


def link_pieces(data: bytes) -> None:
    """Frames or one fault; the same however it is cut; no more is held than came.

    The first bytes say where to cut.
    """
    cuts, sent = data[:3], data[3:]
    places = sorted(place * (len(sent) + 1) // 256 for place in cuts)
    whole, cut_up = (ChunkDecoder(frozenset(FrameKind), frame_bytes_max=1 << 20) for _ in range(2))
    frames: list[tuple[int, bytes]] = []
    for start, stop in pairwise([0, *places, len(sent)]):
        frames += cut_up.feed(sent[start:stop])
        assert cut_up.held_bytes <= stop
    assert frames == whole.feed(sent)
    assert cut_up.fault == whole.fault


def stranger_at(name: str, node: str | None) -> LinkHandshake:
    """End of a handshake, without a peer."""
    us = Identity("rabbits", name, Boot(1, bytes(16)))
    credentials = LinkCredentials(us, b"secret", PeerBoots(), {"a", "b"}, Boots.since(us.boot))
    return LinkHandshake(credentials, node, challenge=name.encode() * 32)


def pieces_seed() -> bytes:
    frames = ((0, 0, b"ping"), (1, 2, b""), (2, 1, bytes(270_000)))
    pieces = [OutgoingFrame(kind, payload).piece(traffic) for traffic, kind, payload in frames]
    return b"".join(b"".join(piece) for piece in pieces) + HEARTBEAT_CHUNK


def record_seed() -> bytes:
    packer = Packer(1, top_group=9)
    packer.pack([*cut(1, 1, 0, b"first"), Deletion(1, 0, 1), *cut(2, 5, 3, b"second" * 9)])
    return packer.finish()[0]


def fact_seed(kind: Kind, key: tuple[str, ...], value: object) -> bytes:
    """Input for `fact`."""
    name = encode_key(key)
    return bytes((list(Kind).index(kind), len(name))) + name + encode_fact(kind, value)


def method_seeds() -> list[bytes]:
    events = read_all([sample_session()])
    return [event.payload for event in events if isinstance(event, MethodReceived)]


DEFINITIONS = {
    "users": [{"name": "u", "password_hash": "", "tags": ["administrator"]}],
    "vhosts": [{"name": "v", "limits": {"max-queues": 3}}],
    "permissions": [{"user": "u", "vhost": "v", "configure": ".*", "write": "", "read": "a"}],
    "exchanges": [{"vhost": "v", "name": "x", "type": "topic", "durable": True, "arguments": {}}],
    "queues": [{"vhost": "v", "name": "q", "durable": True, "arguments": {"x-max-length": 9}}],
    "bindings": [
        {
            "vhost": "v",
            "source": "x",
            "destination": "q",
            "destination_type": "queue",
            "routing_key": "#",
            "arguments": {},
        }
    ],
}

TABLE: dict[str, wire.PlainValue] = {
    "s": "text",
    "i": -5,
    "b": True,
    "t": {"nested": [1, 2.5, None]},
    "empty": {},
}

SELECTORS = (
    b"{'and',{'>',{'ident',<<\"n\">>},-5},{'like',{'ident',<<\"s\">>},<<\"b%\\_\">>,<<\"\\\\\">>}}.",
    b"{'or',{'between',{'/',{'ident',<<\"n\">>},2.5e-3},{range,1,2}},{'is_null',{'ident',<<>>}}}.",
    b'{\'not_in\',{\'ident\',<<"s">>},[<<"a">>,"b",[],{}]}.',
)

TARGETS: Mapping[str, Target] = {
    "reader": Target(reader, [bytes((9, 99, 199)) + sample_session()]),
    "mqtt_reader": Target(mqtt_reader, mqtt_seeds()),
    "method": Target(method, method_seeds()),
    "table": Target(table, [wire.encode_table(wire.to_table(TABLE))[4:]]),
    "selector": Target(selector, SELECTORS),
    "properties": Target(
        properties,
        [
            b"\x10\x00\x02",
            b"\xff\xfc\x01a\x01b" + wire.encode_table(wire.to_table(TABLE)) + b"\x02\x05"
            b"\x01c\x01d\x0260\x01e" + bytes(8) + b"\x01t\x01u\x01a\x01x",
        ],
    ),
    "proxy": Target(
        proxy,
        [
            b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
            b"PROXY UNKNOWN\r\n",
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x09\x00\x0a",
        ],
    ),
    "definitions": Target(definitions, [json.dumps(DEFINITIONS).encode()]),
    "changes": Target(changes, change_seeds()),
    "fact": Target(
        fact,
        [
            fact_seed(Kind.PERMISSION, ("u", "v"), Permission(".*", "", "^a")),
            fact_seed(Kind.VHOST, ("v",), VhostSettings(VhostLimits(max_queues=3), {"tags": []})),
        ],
    ),
    "record": Target(record, [record_seed()]),
    "messages": Target(
        messages, [encode_messages([Origin("x", "key")] * 2 + [Origin("", "q")], [b"a", b"", b"c"])]
    ),
    "entry": Target(entry, entry_seeds()),
    "image": Target(image, [image_seed()]),
    "link_hello": Target(link_hello, [stranger_at("a", "b").start()]),
    "link_pieces": Target(link_pieces, [bytes((9, 99, 199)) + pieces_seed()]),
    "stream": Target(stream, stream_seeds()),
    "talk": Target(talk, [sample_session()[len(GREETING) :]]),
}
