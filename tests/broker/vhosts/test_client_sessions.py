"""Sessions of clients that outlive their connections, as changes of definitions."""

from fluffle.broker.base.client_session import INCOMING, OUTGOING, SENT, ClientSession
from fluffle.broker.metadata.change import NOTHING, Kind
from fluffle.broker.vhosts.client_sessions import (
    ClientSessions,
    PacketChanges,
    end_session,
    keep_session,
)
from tests.support.client_packets import forget_packets, keep_packets, keep_sent
from tests.support.edge import Edge

SESSION = ClientSession("guest", 60, 0, "a", b"record")


def test_a_session_is_kept_with_its_packets_and_ends_with_them() -> None:
    edge = Edge()
    vhost, apply = edge.vhost, edge.catalogue.apply
    apply(keep_session(vhost, "c", SESSION))
    apply(keep_packets(vhost, "c", INCOMING, (3, 1)))
    apply(keep_packets(vhost, "c", OUTGOING, (3,)))
    sessions = vhost.client_sessions
    assert sessions.by_client == {"c": SESSION}
    assert sessions.numbers("c", INCOMING) == [3, 1]
    assert sessions.numbers("c", OUTGOING) == [3]
    apply(forget_packets(vhost, "c", INCOMING, (3, 9)))
    assert sessions.numbers("c", INCOMING) == [1]
    apply(end_session(vhost, "c"))
    assert (sessions.by_client, sessions.packets) == ({}, {})


def test_what_is_so_already_needs_no_change() -> None:
    edge = Edge()
    vhost, apply = edge.vhost, edge.catalogue.apply
    apply(keep_session(vhost, "c", SESSION))
    apply(keep_packets(vhost, "c", INCOMING, (1,)))
    assert not keep_session(vhost, "c", SESSION).changes_nothing  # it may be under way to change
    assert keep_packets(vhost, "c", INCOMING, (1,)).changes_nothing
    assert forget_packets(vhost, "c", OUTGOING, (1,)).changes_nothing
    assert end_session(vhost, "d") == NOTHING


def test_packets_of_no_session_are_not_kept() -> None:
    assert keep_packets(Edge().vhost, "c", INCOMING, (1,)) == NOTHING
    assert forget_packets(Edge().vhost, "c", INCOMING, (1,)) == NOTHING


def test_changes_of_many_packets_and_sessions_are_one_with_a_fact_a_page() -> None:
    edge = Edge()
    vhost, apply = edge.vhost, edge.catalogue.apply
    for client_id in "cd":
        apply(keep_session(vhost, client_id, SESSION))
    changes = PacketChanges(vhost)
    changes.keep("c", INCOMING, range(1, 200))
    changes.keep_messages("d", {number: number for number in range(1, 60)})
    changes.keep("d", OUTGOING, (7,))
    change = changes.change()
    assert len(change.puts) == 4 + 2
    assert {key[1] for kind, key in change.rests_on if kind is Kind.CLIENT_SESSION} == {"c", "d"}
    assert {fact.name for fact in change.puts} < set(change.rests_on)
    apply(change)
    assert vhost.client_sessions.numbers("c", INCOMING) == [*range(1, 200)]
    assert vhost.client_sessions.has("d", OUTGOING, 7)
    assert 7 not in vhost.client_sessions.sent("d")
    changes = PacketChanges(vhost)
    changes.forget("c", INCOMING, range(64, 128))
    changes.keep("c", INCOMING, (500,))
    changes.forget("c", INCOMING, (500,))
    change = changes.change()
    assert ([fact.key for fact in change.removes], change.puts) == ([("/", "c", INCOMING, "1")], ())


def test_what_a_client_has_taken_is_not_what_it_was_sent_any_more() -> None:
    edge = Edge()
    vhost, apply = edge.vhost, edge.catalogue.apply
    sessions = vhost.client_sessions
    assert keep_sent(vhost, "c", {1: 70}) == NOTHING
    apply(keep_session(vhost, "c", SESSION))
    apply(keep_sent(vhost, "c", {1: 70, 2: 71, 3: 0}))
    assert sessions.sent("c") == {1: 70, 2: 71, 3: 0}
    assert keep_sent(vhost, "c", {1: 70}).changes_nothing
    apply(keep_sent(vhost, "c", {1: 72}))
    apply(keep_packets(vhost, "c", OUTGOING, (1,)))
    assert (sessions.sent("c"), sessions.numbers("c", OUTGOING)) == ({2: 71, 3: 0}, [1])
    apply(forget_packets(vhost, "c", OUTGOING, (1, 2)))
    assert sessions.packets == {"c": {(SENT, 0): {3: 0}}}


def test_receipts_are_in_their_order_wherever_they_are_read_from() -> None:
    edge = Edge()
    vhost, apply = edge.vhost, edge.catalogue.apply
    apply(keep_session(vhost, "c", SESSION))
    apply(keep_packets(vhost, "c", OUTGOING, (10, 2)))
    apply(keep_packets(vhost, "c", OUTGOING, (2, 9, 1)))
    sessions = vhost.client_sessions
    assert sessions.numbers("c", OUTGOING) == [10, 2, 9, 1]
    stored = {"c": dict(sorted(sessions.packets["c"].items()))}
    again = ClientSessions(dict(sessions.by_client), stored)
    assert again.numbers("c", OUTGOING) == [10, 2, 9, 1]
    assert again.last_receipt == sessions.last_receipt == 4
