"""Sessions of clients in one virtual host that outlive their connections, whatever the protocol.

Beside a session stand the packets that its client and the broker are in the midst of: numbers that
must not be taken twice, though the node ends in between.

    decide = partial(keep_session, vhost, "meter-7", ClientSession("guest", 3600, 0, record))
    decide = partial(end_session, vhost, "meter-7")

    changes = PacketChanges(vhost)          # packets of any number of sessions
    changes.keep("meter-7", INCOMING, (1, 2))
    change = changes.change()

Pure: each returns a `Change`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Protocol

from fluffle.broker.base.client_session import (
    INCOMING,
    OUTGOING,
    PACKETS_PER_PAGE,
    SENT,
    ClientSession,
    DueWill,
    PacketPage,
    PageName,
    WillName,
)
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Kind, Name


class ClientSessions:
    """Sessions of one virtual host by client, their packets, and wills that are due."""

    __slots__ = ("by_client", "due_wills", "last_receipt", "packets")

    def __init__(
        self,
        by_client: dict[str, ClientSession] | None = None,
        packets: dict[str, dict[PageName, PacketPage]] | None = None,
        due_wills: dict[WillName, DueWill] | None = None,
    ) -> None:
        self.by_client = {} if by_client is None else by_client
        self.packets = {} if packets is None else packets
        """Packets by client and page, without empty ones; for sent packets, the number of the
        message in its queue, for received ones the place of the receipt among all; for those of the
        client, the number by which queues know the message, if they do."""
        self.due_wills = {} if due_wills is None else due_wills
        """Wills of clients whether or not these still have sessions."""
        pages = (page for of_client in self.packets.values() for page in of_client.items())
        receipts = (page.values() for (stage, _), page in pages if stage == OUTGOING)
        self.last_receipt = max((at or 0 for kept in receipts for at in kept), default=0)
        """Place of the last receipt that was noted."""

    def __len__(self) -> int:
        return len(self.by_client)

    def has_any_of(self, node: str) -> bool:
        """True if a node has anything to do: clients were connected to it last, or it is to publish
        wills."""
        kept: Iterable[ClientSession | DueWill] = chain(
            self.by_client.values(), self.due_wills.values()
        )
        return any(each.node == node for each in kept)

    def page(self, client_id: str, name: PageName) -> PacketPage:
        """Return a page, which is empty if there is none."""
        return self.packets.get(client_id, {}).get(name, {})

    def has(self, client_id: str, stage: str, number: int) -> bool:
        """True if a packet is kept."""
        return number in self.page(client_id, (stage, number // PACKETS_PER_PAGE))

    def kept(self, client_id: str, stage: str) -> PacketPage:
        """Return all packets of a client in one stage."""
        found: PacketPage = {}
        for (of_stage, _), page in self.packets.get(client_id, {}).items():
            if of_stage == stage:
                found |= page
        return found

    def numbers(self, client_id: str, stage: str) -> list[int]:
        """Return the packets of a client in one stage, those that it has received in the order of
        their receipts."""
        packets = self.kept(client_id, stage)
        if stage == OUTGOING:
            return sorted(packets, key=lambda number: packets[number] or 0)
        return [*packets]

    def taken(self, client_id: str) -> PacketPage:
        """Return what a client has published, by packet: the number of the message."""
        return self.kept(client_id, INCOMING)

    def sent(self, client_id: str) -> dict[int, int]:
        """Return what a client was sent, by packet: the number in its queue."""
        return {number: at or 0 for number, at in self.kept(client_id, SENT).items()}

    def put_page(self, client_id: str, name: PageName, page: PacketPage) -> None:
        self.packets.setdefault(client_id, {})[name] = page
        if name[0] == OUTGOING:
            self.last_receipt = max(self.last_receipt, *(at or 0 for at in page.values()))

    def remove_page(self, client_id: str, name: PageName) -> None:
        pages = self.packets.get(client_id, {})
        pages.pop(name, None)
        if not pages:
            self.packets.pop(client_id, None)


class SessionHost(Protocol):
    """Virtual host, as far as it has sessions of clients."""

    name: str
    client_sessions: ClientSessions


def session_name(vhost: str, client_id: str) -> Name:
    return Kind.CLIENT_SESSION, (vhost, client_id)


def page_fact(vhost: str, client_id: str, name: PageName, page: PacketPage | None = None) -> Fact:
    stage, place = name
    return Fact(Kind.CLIENT_PACKETS, (vhost, client_id, stage, str(place)), page)


def keep_session(vhost: SessionHost, client_id: str, session: ClientSession) -> Change:
    """Have a session, in the place of what it is now: it is put even if it is so already, for
    another node may be about to change it."""
    kind, key = name = session_name(vhost.name, client_id)
    return Change(puts=(Fact(kind, key, session),), rests_on=(name,))


def keep_will(vhost: SessionHost, name: WillName, will: DueWill) -> Change:
    """Have a will that is due on record, in the place of what it is now."""
    fact = Fact(Kind.CLIENT_WILL, (vhost.name, *name), will)
    return Change(puts=(fact,), rests_on=(fact.name,))


def forget_will(vhost: SessionHost, name: WillName) -> Change:
    """Have a will that was due on record no more."""
    will = vhost.client_sessions.due_wills.get(name)
    if will is None:
        return NOTHING
    fact = Fact(Kind.CLIENT_WILL, (vhost.name, *name), will)
    return Change(removes=(fact,), rests_on=(fact.name,))


class PacketChanges:
    """Changes of packets of the sessions of one virtual host, one on top of the other; of sessions
    that have ended meanwhile nothing is changed."""

    __slots__ = ("_last_receipt", "_pages", "_sessions", "_vhost")

    def __init__(self, vhost: SessionHost) -> None:
        self._vhost = vhost
        self._sessions = vhost.client_sessions
        self._last_receipt = self._sessions.last_receipt
        self._pages: dict[tuple[str, PageName], PacketPage] = {}
        """Pages as they are to be, by client and name, of all that was looked at."""

    def keep(
        self, client_id: str, stage: str, numbers: Iterable[int], *, are_settled: bool = True
    ) -> None:
        """Note packets.

        `are_settled`: messages that the client has received are not in its queue once this is so.
        """
        if client_id not in self._sessions.by_client:
            return
        for number in numbers:
            page = self._page(client_id, stage, number)
            if number in page:
                continue
            if stage != OUTGOING:
                page[number] = None
                continue
            self._last_receipt += 1
            page[number] = self._last_receipt
            if are_settled:
                self._page(client_id, SENT, number).pop(number, None)

    def keep_messages(self, client_id: str, messages: Mapping[int, int], stage: str = SENT) -> None:
        """Note what a client is sent, or has published, by packet."""
        if client_id in self._sessions.by_client:
            for number, message in messages.items():
                self._page(client_id, stage, number)[number] = message

    def forget(self, client_id: str, stage: str, numbers: Iterable[int]) -> None:
        """Forget packets, those that were received as sent, too."""
        stages = (OUTGOING, SENT) if stage == OUTGOING else (stage,)
        for number in numbers:
            for each in stages:
                self._page(client_id, each, number).pop(number, None)

    def change(self) -> Change:
        """Return all of it as one change, which holds if nothing else has changed the packets or
        their sessions."""
        vhost, puts, removes = self._vhost.name, list[Fact](), list[Fact]()
        for (client_id, name), page in self._pages.items():
            before = self._sessions.page(client_id, name)
            if page and page != before:
                puts.append(page_fact(vhost, client_id, name, page))
            elif before and not page:
                removes.append(page_fact(vhost, client_id, name, before))
        changed = [fact.name for fact in (*puts, *removes)]
        sessions = {session_name(vhost, str(key[1])): None for _, key in changed}
        return Change(tuple(removes), tuple(puts), (*sessions, *changed))

    def _page(self, client_id: str, stage: str, number: int) -> PacketPage:
        """Return the page of a packet, to be changed."""
        name = stage, number // PACKETS_PER_PAGE
        page = self._pages.get((client_id, name))
        if page is None:
            page = self._pages[client_id, name] = dict(self._sessions.page(client_id, name))
        return page


def end_sessions_later(vhost: SessionHost, client_ids: Iterable[str]) -> Change:
    """Have these sessions last no longer than their connections."""
    sessions, change = vhost.client_sessions.by_client, NOTHING
    for client_id in dict.fromkeys(client_ids):
        session = sessions.get(client_id)
        if session is not None:
            ended = session._replace(expiry_s=0)
            change = change.joined(keep_session(vhost, client_id, ended))
    return change


def end_session(vhost: SessionHost, client_id: str) -> Change:
    """Have no such session any more, nor its packets."""
    sessions = vhost.client_sessions
    session = sessions.by_client.get(client_id)
    if session is None:
        return NOTHING
    pages = sessions.packets.get(client_id, ())
    kind, key = name = session_name(vhost.name, client_id)
    facts = [page_fact(vhost.name, client_id, page) for page in pages]
    return Change(removes=(*facts, Fact(kind, key, session)), rests_on=(name,))
