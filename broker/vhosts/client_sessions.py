"""Sessions of clients in one virtual host that outlive their connections, whatever the protocol.

Beside a session stand the packets that its client and the broker are in the midst of: numbers that
must not be taken twice, though the node ends in between.

    decide = partial(keep_session, vhost, "meter-7", ClientSession("guest", 3600, 0, record))
    decide = partial(keep_packets, vhost, "meter-7", INCOMING, (1, 2))
    decide = partial(end_session, vhost, "meter-7")

Pure: each returns a `Change`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from fluffle.broker.base.client_session import (
    INCOMING,
    OUTGOING,
    SENT,
    ClientSession,
    PacketNumber,
)
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Kind, Name


class ClientSessions:
    """Sessions of one virtual host by client, and their packets."""

    __slots__ = ("by_client", "last_receipt", "packets")

    def __init__(
        self,
        by_client: dict[str, ClientSession] | None = None,
        packets: dict[str, dict[PacketNumber, int | None]] | None = None,
    ) -> None:
        self.by_client = {} if by_client is None else by_client
        self.packets = {} if packets is None else packets
        """Packets by client, without empty ones; for sent packets, the number of the message in
        its queue, for received ones the place of the receipt among all; for those of the client,
        the number by which queues know the message, if they do."""
        kept = (packet for of_client in self.packets.values() for packet in of_client.items())
        self.last_receipt = max((at or 0 for (way, _), at in kept if way == OUTGOING), default=0)
        """Place of the last receipt that was noted."""

    def __len__(self) -> int:
        return len(self.by_client)

    def numbers(self, client_id: str, direction: str) -> list[int]:
        """Return the packets of a client in one direction, those that it has received in the order
        of their receipts."""
        packets = self.packets.get(client_id, {})
        found = [packet for packet in packets if packet[0] == direction]
        if direction == OUTGOING:
            found.sort(key=lambda packet: packets[packet] or 0)
        return [number for _, number in found]

    def taken(self, client_id: str) -> dict[int, int | None]:
        """Return what a client has published, by packet: the number of the message."""
        packets = self.packets.get(client_id, {}).items()
        return {number: message for (way, number), message in packets if way == INCOMING}

    def sent(self, client_id: str) -> dict[int, int]:
        """Return what a client was sent, by packet: the number in its queue."""
        packets = self.packets.get(client_id, {}).items()
        return {number: message or 0 for (way, number), message in packets if way == SENT}

    def put_packet(self, client_id: str, packet: PacketNumber, message: int | None) -> None:
        self.packets.setdefault(client_id, {})[packet] = message
        if packet[0] == OUTGOING:
            self.last_receipt = max(self.last_receipt, message or 0)

    def remove_packet(self, client_id: str, packet: PacketNumber) -> None:
        packets = self.packets.get(client_id, {})
        packets.pop(packet, None)
        if not packets:
            self.packets.pop(client_id, None)


class SessionHost(Protocol):
    """Virtual host, as far as it has sessions of clients."""

    name: str
    client_sessions: ClientSessions


def session_name(vhost: str, client_id: str) -> Name:
    return Kind.CLIENT_SESSION, (vhost, client_id)


def packet_fact(
    vhost: str, client_id: str, packet: PacketNumber, message: int | None = None
) -> Fact:
    direction, number = packet
    return Fact(Kind.CLIENT_PACKET, (vhost, client_id, direction, str(number)), message)


def keep_session(vhost: SessionHost, client_id: str, session: ClientSession) -> Change:
    """Have a session, in the place of what it is now: it is put even if it is so already, for
    another node may be about to change it."""
    kind, key = name = session_name(vhost.name, client_id)
    return Change(puts=(Fact(kind, key, session),), rests_on=(name,))


def keep_packets(
    vhost: SessionHost,
    client_id: str,
    direction: str,
    numbers: Iterable[int],
    *,
    are_settled: bool = True,
) -> Change:
    """Note packets of a session; nothing if that has ended meanwhile.

    `are_settled`: messages that the client has received are not in its queue once this is so."""
    sessions = vhost.client_sessions
    if client_id not in sessions.by_client:
        return NOTHING
    there: Collection[PacketNumber] = sessions.packets.get(client_id, ())
    new = [(direction, number) for number in numbers if (direction, number) not in there]
    if direction != OUTGOING:
        return Change(puts=tuple(packet_fact(vhost.name, client_id, packet) for packet in new))
    puts = tuple(
        packet_fact(vhost.name, client_id, packet, at)
        for at, packet in enumerate(new, start=sessions.last_receipt + 1)
    )
    if not are_settled:
        return Change(puts=puts)
    sent = [(SENT, number) for _, number in new if (SENT, number) in there]
    removes = tuple(packet_fact(vhost.name, client_id, packet) for packet in sent)
    return Change(puts=puts, removes=removes)


def keep_sent(
    vhost: SessionHost, client_id: str, messages: Mapping[int, int], direction: str = SENT
) -> Change:
    """Note what a client is sent, or has published, by packet; nothing if its session has ended
    meanwhile."""
    sessions = vhost.client_sessions
    if client_id not in sessions.by_client:
        return NOTHING
    there = sessions.packets.get(client_id, {})
    puts = tuple(
        packet_fact(vhost.name, client_id, (direction, number), message)
        for number, message in messages.items()
        if there.get((direction, number)) != message
    )
    return Change(puts=puts)


def forget_packets(
    vhost: SessionHost, client_id: str, direction: str, numbers: Iterable[int]
) -> Change:
    """Forget packets of a session; those that are not there need no change."""
    there: Collection[PacketNumber] = vhost.client_sessions.packets.get(client_id, ())
    ways = (OUTGOING, SENT) if direction == OUTGOING else (direction,)
    gone = [(way, number) for number in numbers for way in ways if (way, number) in there]
    return Change(removes=tuple(packet_fact(vhost.name, client_id, packet) for packet in gone))


def end_session(vhost: SessionHost, client_id: str) -> Change:
    """Have no such session any more, nor its packets."""
    sessions = vhost.client_sessions
    session = sessions.by_client.get(client_id)
    if session is None:
        return NOTHING
    packets = sessions.packets.get(client_id, ())
    kind, key = name = session_name(vhost.name, client_id)
    facts = [packet_fact(vhost.name, client_id, packet) for packet in packets]
    return Change(removes=(*facts, Fact(kind, key, session)), rests_on=(name,))
